"""DoLa and SLED while decoding: the tokens of a loop that runs the whole text for each of them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MaxLengthCriteria,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
)

import lens_interventions as li
from lens_interventions.intervention.generation.layer_contrast import early_layers
from lens_interventions.model.embedding import embeddings_are_tied
from tests.support import reference_layer_contrast as reference
from tests.support.architectures import LENS_ARCHITECTURES
from tests.support.clean import left_as_found
from tests.support.exact import float64_softmax, tolerance
from tests.support.reference_generation import next_logits
from tests.support.tiny import long_rope_bridge, shared_bridge

PROMPTS = [[5, 17, 4, 44, 17, 60, 9, 9, 31, 8], [33], [70, 70, 12, 99]]
# With the layers of a model of three blocks.
RULES = {
    "DoLa, low": (li.DoLa(), reference.dola, {False: [0], True: [2]}),
    "DoLa, all": (li.DoLa("all"), reference.dola, {False: [0, 1, 2], True: [2]}),
    "DoLa, chosen": (li.DoLa([2, 1], alpha=0.3), lambda *z: reference.dola(*z, 0.3), [2, 1]),
    "SLED": (li.SLED(), reference.sled, {False: [0, 1, 2], True: [2]}),
    "SLED, chosen": (li.SLED([0, 1], 3.0, 5), lambda *z: reference.sled(*z, 3.0, 5), [0, 1]),
}


class Recorder(LogitsProcessor):
    """Keeps the logits that it is given, by the text that they continue."""

    def __init__(self) -> None:
        self.logits: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.logits |= zip(map(tuple, input_ids.tolist()), scores, strict=True)
        return scores


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
def test_logits_and_greedy_tokens_are_the_naive_ones(arch, rule):
    """Prompts of different lengths together, which end at different steps."""
    bridge = shared_bridge(arch)
    contrast, naive, layers = RULES[rule]
    if isinstance(layers, dict):
        layers = layers[arch != "llama"]
    recorder = Recorder()
    with float64_softmax(), left_as_found(bridge):
        out = li.generate(
            bridge,
            PROMPTS,
            max_new_tokens=8,
            logits_processor=[contrast, recorder],
            stopping_criteria=[MaxLengthCriteria(11)],
            stop_at_eos=False,
        )
        assert out.lengths.tolist() == [1, 8, 7]
        for row, prompt in enumerate(PROMPTS):
            n_new = int(out.lengths[row])
            expected = reference.decode(bridge, prompt, naive, layers, n_new)
            assert out.tokens[row, :n_new].tolist() == expected
        for text, found in recorder.logits.items():
            expected = reference.new_logits(bridge, text, naive, layers)
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance(arch))
    assert len(recorder.logits) == 1 + 8 + 7


@pytest.mark.parametrize("penalty_first", [False, True])
def test_a_repetition_penalty_acts_on_the_contrasted_logits(penalty_first):
    bridge = shared_bridge("llama")
    processors = [li.DoLa("all"), RepetitionPenaltyLogitsProcessor(1.5)]
    if penalty_first:
        processors.reverse()
    with float64_softmax():
        out = li.generate(
            bridge, PROMPTS, max_new_tokens=8, logits_processor=processors, stop_at_eos=False
        )
        for row, prompt in enumerate(PROMPTS):
            assert out.tokens[row].tolist() == reference.decode(
                bridge, prompt, reference.dola, [0, 1, 2], 8, penalty=1.5
            )


def test_under_a_patch_the_patched_model_is_contrasted():
    """Several patches share the prompts' first run; below the patch the last position is clean."""
    bridge = shared_bridge("llama")
    patches = [None, li.NextTokenPatch(layer=1, strength=0.5)]
    with float64_softmax():
        out = li.generate(
            bridge,
            PROMPTS,
            patches,
            max_new_tokens=6,
            logits_processor=[li.DoLa([0, 1])],
            stop_at_eos=False,
        )
        for row, prompt in enumerate(PROMPTS * 2):
            patch = patches[row // len(PROMPTS)]
            expected = reference.decode(
                bridge,
                prompt,
                reference.dola,
                [0, 1],
                6,
                last_logits=lambda tokens, patch=patch, prompt=prompt: next_logits(
                    bridge, tokens, patch, len(prompt), 0
                ).numpy(),
            )
            assert out.tokens[row].tolist() == expected
    assert not torch.equal(out.of_patch(0).tokens, out.of_patch(1).tokens)


def test_without_a_cache_the_tokens_are_the_same():
    bridge = long_rope_bridge(8)
    with pytest.warns(UserWarning, match="recomputed from its start"):
        out = li.generate(
            bridge, PROMPTS, max_new_tokens=4, logits_processor=[li.SLED()], stop_at_eos=False
        )
    with float64_softmax():
        for row, prompt in enumerate(PROMPTS):
            expected = reference.decode(bridge, prompt, reference.sled, [0, 1, 2], 4)
            assert out.tokens[row].tolist() == expected


def test_a_temperature_comes_after_the_contrast_and_a_trajectory_beside_it():
    bridge = shared_bridge("llama")
    options = {"max_new_tokens": 8, "do_sample": True, "stop_at_eos": False, "seed": 3}
    after = [TemperatureLogitsWarper(0.5), li.DoLa()]
    out = li.generate(bridge, PROMPTS, logits_processor=after, **options)
    other = li.generate(
        bridge, PROMPTS, logits_processor=[li.DoLa()], temperature=0.5, trajectory=True, **options
    )
    assert torch.equal(out.tokens, other.tokens)
    plain = li.generate(bridge, PROMPTS, temperature=0.5, **options)
    assert not torch.equal(out.tokens, plain.tokens)
    assert other.trajectory.next_rank.shape == (4, 3, 8)


def test_transformers_own_generate_takes_it_with_a_custom_generate():
    bridge = shared_bridge("llama")
    prompt = torch.tensor(PROMPTS[:1])
    ours = li.generate(
        bridge,
        prompt,
        max_new_tokens=8,
        logits_processor=[li.DoLa(), RepetitionPenaltyLogitsProcessor(1.2)],
    )
    options = {
        "attention_mask": torch.ones_like(prompt),
        "max_new_tokens": 8,
        "repetition_penalty": 1.2,
        "logits_processor": [li.DoLa()],
    }
    theirs = bridge.original_model.generate(
        prompt, custom_generate=li.as_custom_generate(bridge, None), **options
    )
    assert theirs.tolist() == ours.whole.tokens.tolist()
    with pytest.raises(TypeError, match=r"DoLa reads the residual stream, .*as_custom_generate"):
        bridge.original_model.generate(prompt, **options)


@pytest.mark.parametrize(
    ("layers", "n_layers", "tied", "expected"),
    [
        # As transformers 4 has it for dola_layers="low" and "high".
        ("low", 32, False, range(0, 16, 2)),
        ("high", 32, False, range(16, 32, 2)),
        ("low", 30, True, range(2, 15, 2)),
        ("high", 30, True, range(15, 30, 2)),
        ("low", 80, False, range(0, 20, 2)),
        ("high", 80, True, range(60, 80, 2)),
        ("low", 40, True, range(2, 20, 2)),
        ("high", 40, True, range(20, 40, 2)),
        ("high", 41, True, range(21, 41, 2)),
        ("low", 4, True, [2]),
        ("low", 2, True, [1]),
        ("low", 1, True, [0]),
        # Its choice is empty here.
        ("low", 3, True, [2]),
        ("low", 1, False, [0]),
        ("all", 5, True, [2, 3, 4]),
        ("all", 2, False, [0, 1]),
        ([3, 0], 4, True, [3, 0]),
    ],
)
def test_candidate_layers(layers, n_layers, tied, expected):
    assert early_layers(layers, n_layers, tied=tied) == tuple(expected)


@pytest.mark.parametrize("arch", LENS_ARCHITECTURES)
def test_tied_embeddings_are_one_matrix(arch):
    bridge = shared_bridge(arch)
    assert embeddings_are_tied(bridge) == torch.equal(bridge.W_E, bridge.W_U.T)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        ([li.DoLa([3])], r"the model has blocks 0 to 2, but layers are \[3\]"),
        ([li.DoLa([0, -1])], r"layers are \[0, -1\]"),
        ([li.DoLa([])], r"layers are \[\]: give one or more"),
        ([li.DoLa(), li.SLED()], "DoLa.* and SLED.* each replace .* give one"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(contrasts, message):
    with pytest.raises(ValueError, match=message):
        li.generate(shared_bridge("llama"), PROMPTS, max_new_tokens=1, logits_processor=contrasts)


def test_settings_that_mean_nothing_are_refused():
    for alpha in (0.0, 1.5):
        with pytest.raises(ValueError, match="alpha must be above 0 and at most 1"):
            li.DoLa(alpha=alpha)
    with pytest.raises(ValueError, match="scale must be at least 1 token, got 0"):
        li.SLED(scale=0)
    for rate in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"rate must be finite, got {rate}"):
            li.SLED(rate=rate)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("make", [lambda: li.DoLa(alpha="0.1"), lambda: li.SLED(rate=None)])
def test_what_is_no_number_is_refused(make):
    with pytest.raises(TypeError, match="must be a number, got"):
        make()


@pytest.mark.parametrize("rule", [li.DoLa, li.SLED])
def test_an_unknown_word_is_refused_where_the_rule_is_made(rule):
    with pytest.raises(ValueError, match="'low', 'high', 'all' or a list of ints, got 'middle'"):
        rule("middle")
