"""A model whose upper blocks take keys and values from lower ones, such as Gemma 4.

These blocks cannot run on a residual alone, so a patch among them, or a measurement that runs them
so, is recomputed or refused, and never wrong.
"""

import pytest

import lens_interventions as li
from tests.support import architectures
from tests.support.exact import close
from tests.support.reference_generation import naive_tokens
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, tiny_bridge

SHARED = {
    **architectures.LENS_ARCHITECTURES["llama"],
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "sliding_window": 6,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 112,
    "global_head_dim": 8,
}
PROMPTS = [[5, 17, 4, 44, 17, 60, 9], [33, 8]]


@pytest.fixture
def bridge(monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "gemma4_text", SHARED)
    return tiny_bridge("gemma4_text")


@pytest.mark.filterwarnings("ignore:decoding with a cache is not exact")
@pytest.mark.parametrize("layer", [0, 1, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"source": li.BackPatch(5)}, {"gate": 4.0, "gate_on": "output"}],
    ids=["true", "back patch", "gate on the output"],
)
def test_texts_are_those_of_the_step_by_step_loop(bridge, layer, options):
    patch = li.NextTokenPatch(layer=layer, strength=0.5, scale="norm", **options)
    out = li.generate(bridge, PROMPTS, patch, max_new_tokens=4, stop_at_eos=False)
    assert out.tokens.tolist() == naive_tokens(bridge, PROMPTS, patch, 4)


@pytest.mark.filterwarnings("ignore:.*does not run two copies of a text")
@pytest.mark.filterwarnings("ignore:decoding with a cache is not exact")
@pytest.mark.parametrize("layer", [1, 4])
def test_given_texts_are_predicted_as_by_the_step_by_step_loop(bridge, layer):
    patch = li.NextTokenPatch(layer=layer, strength=0.5, scale="norm")
    tokens = random_tokens(1, 12)
    found = li.teacher_forced_logits(bridge, tokens, patch)[0]
    close(found, patched_logits(bridge, tokens[0], patch))


def test_what_would_run_the_upper_blocks_alone_is_refused_and_says_why(bridge):
    tokens = random_tokens(1, 12)
    patch = li.NextTokenPatch(layer=4, strength=0.5, scale="norm")
    with pytest.raises(NotImplementedError, match="does not run two copies of a text"):
        li.slope_map(bridge, list(tokens), progress=False)
    for layer in (0, 4):
        with pytest.raises(NotImplementedError, match=f"does not run its blocks from {layer} up"):
            li.effect_map(
                bridge, tokens, lambda logits: logits[0, -1, 5], patch=patch, layers=[layer]
            )


def test_a_norm_that_cannot_be_read_without_its_gain_is_named(bridge):
    with pytest.raises(NotImplementedError, match="without its gain and shift"):
        li.unlikely_components(bridge, list(random_tokens(2, 12)), progress=False, directions=4)
