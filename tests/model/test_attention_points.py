"""The names of attention's hooks: those of a run, with the shapes that are promised."""

import pytest
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.model.attention_points import attention_points, has_attention_points
from tests.support.tiny import random_tokens, tiny_bridge

SHAPES = {
    "k": lambda cfg: (2, 5, cfg.n_key_value_heads or cfg.n_heads, cfg.d_head),
    "v": lambda cfg: (2, 5, cfg.n_key_value_heads or cfg.n_heads, cfg.d_head),
    "z": lambda cfg: (2, 5, cfg.n_heads, cfg.d_head),
    "pattern": lambda cfg: (2, cfg.n_heads, 5, 5),
    "out": lambda cfg: (2, 5, cfg.d_model),
}


@pytest.mark.parametrize("point", SHAPES)
def test_each_layer_has_the_point_with_the_promised_shape(llama: TransformerBridge, point):
    names = attention_points(llama, point, range(1, 3))
    _, cache = llama.run_with_cache(random_tokens(2, 5))
    assert [name.split(".")[1] for name in names] == ["1", "2"]
    assert [tuple(cache[name].shape) for name in names] == [SHAPES[point](llama.cfg)] * 2
    assert has_attention_points(llama, point, range(1, 3))


def test_a_layer_without_the_point_is_named():
    rwkv = tiny_bridge("rwkv")
    assert not has_attention_points(rwkv, "k", [1])
    with pytest.raises(NotImplementedError, match=r"has no blocks\.1\.attn\.hook_k: its attention"):
        attention_points(rwkv, "k", [1])
