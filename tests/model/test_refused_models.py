"""Models that a lens or a patch would read wrongly are refused, and the error gives the reason."""

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTModel

import lens_interventions as li
from lens_interventions.experiments.unlikely.ablation import measure_ablation
from lens_interventions.model.embedding import embedding
from tests.support.tiny import tiny_bridge, tiny_tokenizer

TOKENS = torch.arange(5, 17)[None]
PATCH = li.NextTokenPatch(layer=1, strength=0.5, scale="norm", embedding="W_U")
CALLS = {
    "lens": lambda bridge: li.logit_lens(bridge, TOKENS),
    "teacher forcing": lambda bridge: li.teacher_forced_log_probs(bridge, TOKENS, PATCH),
    "generation": lambda bridge: li.generate(bridge, TOKENS, PATCH, max_new_tokens=2),
    "effect map": lambda bridge: li.effect_map(
        bridge, TOKENS, lambda logits: logits[0, -1, 7], patch=PATCH, positions=[4]
    ),
    "components": lambda bridge: li.component_logits(bridge, TOKENS),
    "slopes": lambda bridge: li.slope_map(bridge, [TOKENS], embeddings=["W_U"], progress=False),
}


class Twice(nn.ModuleList):
    """Blocks that run one after another, and then all of them again."""

    def __getitem__(self, index):
        found = super().__getitem__(index)
        return [*found, *found] if isinstance(index, slice) else found


@pytest.mark.parametrize("call", CALLS)
def test_blocks_that_run_twice(call):
    bridge = tiny_bridge("llama", use_cache=False)
    bridge.original_model.model.layers.__class__ = Twice
    with pytest.raises(NotImplementedError, match="LlamaForCausalLM runs its blocks 2 times"):
        CALLS[call](bridge)


@pytest.mark.parametrize("call", CALLS)
def test_attention_to_later_tokens(call):
    bridge = tiny_bridge("gemma3_text", use_bidirectional_attention=True)
    with pytest.raises(NotImplementedError, match="attends to later tokens too"):
        CALLS[call](bridge)


def test_attention_to_later_tokens_in_half_precision():
    """Experts get other tokens if a later one changes, and may round differently."""
    both_ways = tiny_bridge("gemma3_text", use_bidirectional_attention=True, dtype=torch.bfloat16)
    with pytest.raises(NotImplementedError, match="attends to later tokens too"):
        li.logit_lens(both_ways, TOKENS)
    for seed in range(5):
        li.logit_lens(tiny_bridge("mixtral", seed=seed, dtype=torch.bfloat16), TOKENS)


def mixes(tensor, hook):
    return tensor - 0.1 * tensor.mean(1, keepdim=True)


def takes_one_text(tensor, hook):
    (text,) = tensor
    return 1.1 * text[None]


@pytest.mark.parametrize("hook", [mixes, takes_one_text])
@pytest.mark.parametrize("name", ["blocks.1.hook_resid_post", "embed.hook_out"])
def test_permanent_hooks_of_any_kind_are_part_of_the_model(name, hook):
    bridge = tiny_bridge("llama")
    bridge.add_perma_hook(name, hook)
    read = li.logit_lens(bridge, TOKENS).next_log_prob[-1, 0, :-1]
    own = bridge(TOKENS).log_softmax(-1)[0, :-1].gather(-1, TOKENS[0, 1:, None])[:, 0]
    torch.testing.assert_close(read.to(own), own, rtol=0, atol=1e-5)  # kept in float32


@pytest.mark.parametrize("call", CALLS)
def test_logits_without_a_final_norm(call):
    with pytest.raises(NotImplementedError, match="no final norm between its last block"):
        CALLS[call](tiny_bridge("openai-gpt"))


@pytest.mark.parametrize("arch", ["bloom", "nanochat"])
def test_rows_that_are_not_what_the_model_feeds(arch):
    """Both have a norm between the embedding and the first block."""
    bridge = tiny_bridge(arch)
    with pytest.raises(NotImplementedError, match="embedding='W_U'"):
        embedding(bridge)
    with pytest.raises(NotImplementedError, match="embedding='W_U'"):
        li.NextTokenPatch(layer=1, strength=0.5).bind(bridge)


def test_blocks_that_read_more_than_the_residual():
    bridge = tiny_bridge("zamba2")
    with pytest.raises(NotImplementedError, match="run its blocks from 1 up on a residual"):
        CALLS["effect map"](bridge)
    document = {"cluster": "a", "tokens": TOKENS[0].tolist()}
    settings = {"layers": [1], "below": 1e-3, "directions": 40, "ablated": 3, "seed": 5}
    refused = pytest.raises(NotImplementedError, match="run its blocks from 1 up on a residual")
    with torch.no_grad(), refused:
        measure_ablation(bridge, [document], **settings)


def test_teacher_forcing_that_is_refused_promises_nothing_before(recwarn):
    for arch in ("jamba", "rwkv"):
        bridge = tiny_bridge(arch)
        with pytest.raises(NotImplementedError, match="has recurrent layers"):
            li.head_slopes(bridge, [TOKENS[0]], li.NextTokenPatch(layer=1, strength=0.1))
        for name in ("teacher forcing", "slopes"):
            with pytest.raises(NotImplementedError, match="has recurrent layers"):
                CALLS[name](bridge)
        with (
            bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", lambda tensor, hook: tensor)]),
            pytest.raises(NotImplementedError, match="has recurrent layers"),
        ):
            CALLS["teacher forcing"](bridge)
    assert not [each for each in recwarn if "is exact" in str(each.message)]


def test_streams_and_heads_that_cannot_be_taken_apart():
    with pytest.raises(NotImplementedError, match=r"no blocks\.0\.hook_attn_out, so its stream"):
        li.component_logits(tiny_bridge("jamba"), TOKENS)
    deepseek = tiny_bridge("deepseek_v3")
    assert li.component_logits(deepseek, TOKENS).logits.isfinite().all()
    with pytest.raises(NotImplementedError, match="into 6 heads, and it has 4: leave heads out"):
        li.component_logits(deepseek, TOKENS, heads=True)


def test_an_encoder_of_images():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": 28, "patch_size": 14}
    model = ViTModel(ViTConfig(**sizes, num_hidden_layers=2, num_attention_heads=2)).eval()
    model.config.architectures = ["ViTModel"]
    bridge = li.load_model(hf_model=model, tokenizer=tiny_tokenizer(), device="cpu")
    with pytest.raises(NotImplementedError, match="no single stack of blocks"):
        li.logit_lens(bridge, TOKENS)
