"""SAEs of sae-lens, as hooks on a plain bridge or in its own models.

`make compat` runs these tests beside sae-lens.
"""

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
    return sae_at(POINT)


def sae_at(name):
    torch.manual_seed(0)
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=name)
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


@pytest.fixture(scope="module")
def sae_model():
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=3, d_model=32, n_ctx=16, d_head=8, act_fn="gelu", d_vocab=40, dtype=torch.float64
    )
    with pytest.warns(DeprecationWarning, match="HookedTransformer is deprecated"):
        return sae_lens.HookedSAETransformer(config)


@torch.no_grad()
@pytest.mark.parametrize("name", ["blocks.1.hook_mlp_out", "blocks.1.hook_resid_post"])
def test_an_sae_in_a_hooked_transformer_is_read_where_it_leaves_the_points(sae_model, name):
    """The output of a block that is not the last is read as the input of the next."""
    tokens, sae = torch.arange(8)[None] + 4, sae_at(name)
    hooks = [(name, lambda tensor, hook: sae(tensor))]
    with sae_model.hooks(fwd_hooks=hooks):
        expected = li.logit_lens(sae_model, tokens)
        with sae_model.hooks(fwd_hooks=PATCH.fwd_hooks(sae_model, tokens)):
            patched = sae_model(tokens)
    with sae_model.saes(saes=[sae]):
        read = li.logit_lens(sae_model, tokens)
        close(read.top_logits, expected.top_logits)
        assert torch.equal(read.top_ids, expected.top_ids)
        hooks = PATCH.fwd_hooks(sae_model, tokens)
        close(sae_model.run_with_hooks(tokens, fwd_hooks=hooks), patched)


@pytest.mark.parametrize("name", ["blocks.2.hook_resid_post", "blocks.1.hook_resid_pre"])
def test_an_sae_on_a_point_that_is_read_is_refused(sae_model, name):
    sae_model.add_sae(sae_at(name))
    try:
        with pytest.raises(ValueError, match=f"HookedSAETransformer has no hook called {name}"):
            li.logit_lens(sae_model, torch.arange(4, 12)[None])
    finally:
        sae_model.reset_saes()
