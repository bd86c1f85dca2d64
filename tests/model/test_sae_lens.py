"""SAEs of sae-lens as hooks on a plain bridge. `make compat` runs these tests beside sae-lens."""

import pytest
import torch

import lens_interventions as li
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, tiny_model, tiny_tokenizer

sae_lens = pytest.importorskip(
    "sae_lens", reason="sae-lens asks for TransformerLens below 4; make compat installs both"
)

pytestmark = pytest.mark.usefixtures("exact")

POINT = "blocks.1.hook_resid_post"
PATCH = li.NextTokenPatch(layer=1, strength=0.5, scale="norm")


@pytest.fixture(scope="module")
def sae():
    torch.manual_seed(0)
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=POINT)
    config = sae_lens.StandardSAEConfig(
        d_in=32, d_sae=64, dtype="float64", device="cpu", metadata=metadata
    )
    made = sae_lens.StandardSAE(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.requires_grad_(False)


@pytest.fixture
def hooked(sae):
    def reconstruct(tensor, hook):
        return sae(tensor)

    return [(POINT, reconstruct)]


@torch.no_grad()
@pytest.mark.parametrize("bridge", ["gpt2", "llama", "gemma2"], indirect=True)
def test_lens_cache_teacher_forcing_and_generation(bridge, sae, hooked):
    tokens = random_tokens(1, 8)
    with bridge.hooks(fwd_hooks=hooked):
        logits, cache = bridge.run_with_cache(tokens)
        read = li.logit_lens(bridge, tokens)
        out = li.generate(bridge, tokens, PATCH, max_new_tokens=4, do_sample=False)
        expected = patched_logits(bridge, out.tokens[0], PATCH)
    plain = bridge.run_with_cache(tokens)[1][POINT]
    close(cache[POINT], sae(plain))
    close(read.top_logits[-1, 0, -1, 0], logits[0, -1].max())
    forced = li.teacher_forced_logits(bridge, out.tokens, PATCH, fwd_hooks=hooked)
    close(forced[0], expected)
    assert out.tokens[0, 8:].tolist() == expected[7:-1].argmax(-1).tolist()


def test_a_bridge_without_hook_names_is_refused_with_the_way(sae):
    bridge = sae_lens.SAETransformerBridge.boot_transformers(
        "tiny-llama",
        hf_model=tiny_model("llama"),
        dtype=torch.float64,
        device="cpu",
        tokenizer=tiny_tokenizer(),
    )
    bridge.add_sae(sae)
    with pytest.raises(ValueError, match="as a hook on a plain TransformerBridge"):
        li.logit_lens(bridge, random_tokens(4))
