"""Generation with a cache: the same tokens and logits as computing everything anew each time."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MaxLengthCriteria,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

import lens_interventions as li
from lens_interventions.intervention.generation.cached_decoder import CachedDecoder
from lens_interventions.intervention.modes import MODES
from lens_interventions.intervention.sources import BackPatch, source_names
from lens_interventions.intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from tests.support.architectures import LENS_ARCHITECTURES, MPT_WITH_CACHE, WINDOW
from tests.support.clean import left_as_found
from tests.support.exact import float64_softmax, tolerance
from tests.support.reference_generation import generate_naively
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge

# One text is longer than the sliding windows, one is a single token.
PROMPTS = [[5, 17, 4, 44, 17, 60, 9, 9, 31, 8], [33], [70, 70, 12, 99]]
assert len(PROMPTS[0]) > WINDOW

PATCH = li.NextTokenPatch(layer=1, strength=0.5)
BACK = li.NextTokenPatch(layer=0, strength=0.7, source=BackPatch(2))
GATED = li.NextTokenPatch(layer=1, strength=1.0, gate=4.0, gate_on="output")


def assert_naive(bridge, out, patch, *, row=0, tol=1e-9, text_seed=0):
    """Row `row` of `out` holds the naive tokens and log-probabilities."""
    prompt = out.prompts[row][out.prompts[row] >= 0].tolist()
    n_new = int(out.lengths[row])
    tokens, logits = generate_naively(bridge, prompt, patch, n_new, text_seed=text_seed)
    assert out.tokens[row, :n_new].tolist() == tokens
    expected = logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(
        out.log_probs[row, :n_new], expected, rtol=0, atol=tol, check_dtype=False
    )


def assert_equal(left, right, tol=1e-9):
    assert torch.equal(left.tokens, right.tokens)
    assert torch.equal(left.lengths, right.lengths)
    torch.testing.assert_close(left.log_probs, right.log_probs, rtol=0, atol=tol, equal_nan=True)


# --- the cache changes nothing ---------------------------------------------------------------


@pytest.mark.parametrize("arch", [*LENS_ARCHITECTURES, "gpt_neo", MPT_WITH_CACHE])
def test_cached_is_naive_on_every_architecture(arch):
    bridge = shared_bridge(arch)
    several = li.NextTokenPatch(layer=(0, 2), strength=0.3, mode="add", window=2)
    patches = [None, PATCH, several, GATED, BACK]
    with float64_softmax(), left_as_found(bridge):
        out = li.generate(bridge, PROMPTS[:2], patches, max_new_tokens=5, stop_at_eos=False)
        for row, patch in enumerate(patches):
            for prompt in range(2):
                assert_naive(bridge, out, patch, row=2 * row + prompt, tol=tolerance(arch))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("source", source_names())
@pytest.mark.parametrize("bridge", ["gemma2"], indirect=True)
def test_every_mode_and_source(bridge, mode, source):
    patch = li.NextTokenPatch(
        layer=2, strength=0.4, mode=mode, source=source, scale="norm", embedding="W_U", seed=7
    )
    with float64_softmax():
        out = li.generate(
            bridge,
            PROMPTS[:1],
            patch,
            max_new_tokens=5,
            stop_at_eos=False,
            text_seeds=torch.tensor([11]),
        )
        assert_naive(bridge, out, patch, text_seed=11)


@pytest.mark.usefixtures("always_faster")
def test_a_lens_that_reads_many_rows_reads_the_same():
    """From 512 rows on, processors on which it is faster read a copy of the unembedding."""
    bridge = shared_bridge("llama", torch.float32)
    patch = replace(PATCH, mode="correct", scale="norm")
    prompts = [[i, *PROMPTS[0], i] for i in range(35)]
    options = {"max_new_tokens": 4, "stop_at_eos": False}
    many = li.generate(bridge, prompts, patch, **options)
    for i in (0, 20, 34):
        alone = li.generate(bridge, [prompts[i]], patch, **options)
        assert torch.equal(many.tokens[i], alone.tokens[0])
        # Products of other sizes round float32 sums in another order.
        torch.testing.assert_close(many.log_probs[i], alone.log_probs[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"positions": "generated"},
        {"first_position": 2},
        {"positions": (0, 3, 12)},
        {"window": 1},
        {"window": 4},
        {"window": 40},
        {"gate": 4.0},
        {"gate": 4.0, "gate_on": "output", "layer": 0},
        {"gate": 5.0, "gate_on": "output", "window": 2, "layer": (1, 2)},
        {"positions": "generated", "window": 2, "layer": (0, 1, 2)},
        {"strength": 0.0},
        {"strength": 1.0, "layer": 0},
        {"layer": (1, 2), "scale": "norm"},
    ],
    ids=str,
)
def test_every_restriction(options):
    bridge = shared_bridge("gemma3_text")
    patch = replace(PATCH, **options)
    with float64_softmax():
        out = li.generate(bridge, PROMPTS[::2], patch, max_new_tokens=8, stop_at_eos=False)
        for row in range(2):
            assert_naive(bridge, out, patch, row=row)


@pytest.mark.parametrize("window", [None, 3])
def test_a_gate_on_the_output_opens_where_the_unpatched_model_was_surprised(window):
    """Also beside other patches, with padding, and when some rows have ended."""
    bridge = shared_bridge("gemma3_text")
    # Low enough that some of the likeliest tokens open it.
    gated = replace(GATED, gate=2.0, window=window)
    patches = [gated, replace(gated, gate=0.0), replace(gated, gate=99.0), BACK]
    options = {
        "max_new_tokens": 8,
        "stopping_criteria": [MaxLengthCriteria(max_length=12)],
        "stop_at_eos": False,
    }
    with float64_softmax():
        out = li.generate(bridge, PROMPTS, patches, **options)
        assert len(set(out.lengths.tolist())) > 1
        for row, number in enumerate(out.patch_index.tolist()):
            assert_naive(bridge, out, patches[number], row=row)
        ungated = replace(PATCH, strength=1.0, window=window)
        others = li.generate(bridge, PROMPTS, [ungated, None], **options)
    n = len(PROMPTS)
    for part, expected in ((slice(n, 2 * n), slice(0, n)), (slice(2 * n, 3 * n), slice(n, 2 * n))):
        width = min(out.tokens.shape[1], others.tokens.shape[1])
        assert torch.equal(out.tokens[part, :width], others.tokens[expected, :width])
    assert not torch.equal(out.log_probs[:n], out.log_probs[n : 2 * n])
    assert not torch.equal(out.log_probs[:n], out.log_probs[2 * n :])


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 100])
@pytest.mark.parametrize("window", [None, 3])
def test_prompts_in_chunks(chunk_size, window):
    bridge = shared_bridge("cohere2")
    patches = [replace(PATCH, window=window), None, replace(GATED, window=window), BACK]
    options = {"max_new_tokens": 5, "stop_at_eos": False}
    with float64_softmax():
        whole = li.generate(bridge, PROMPTS, patches, **options)
        assert_equal(whole, li.generate(bridge, PROMPTS, patches, chunk_size=chunk_size, **options))


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("window", [None, 2])
def test_resumed_is_uninterrupted(do_sample, window):
    bridge = shared_bridge("llama")
    patch = replace(PATCH, positions="generated", window=window, source="random")
    options = {"do_sample": do_sample, "seed": 3, "stop_at_eos": False}
    drawn = {"text_seeds": torch.tensor([4, 5, 6])}
    with float64_softmax():
        whole = li.generate(bridge, PROMPTS, patch, max_new_tokens=9, **drawn, **options)
        begun = li.generate(bridge, PROMPTS, patch, max_new_tokens=4, **drawn, **options)
        resumed = li.generate(
            bridge,
            begun.whole.tokens,
            patch,
            attention_mask=begun.whole.mask,
            prompt_length=begun.prompt_lengths,
            max_new_tokens=5,
            text_seeds=begun.text_seeds,
            **options | {"seed": begun.seeds},
        )
    assert torch.equal(torch.cat([begun.tokens, resumed.tokens], dim=1), whole.tokens)
    torch.testing.assert_close(resumed.log_probs, whole.log_probs[:, 4:], rtol=0, atol=1e-9)
    assert torch.equal(resumed.whole.tokens, whole.whole.tokens)


@pytest.mark.parametrize("do_sample", [False, True])
def test_a_prompt_gets_what_it_gets_alone(do_sample):
    bridge = shared_bridge("mistral")
    processors = [
        TemperatureLogitsWarper(0.8),
        RepetitionPenaltyLogitsProcessor(1.5),
        NoRepeatNGramLogitsProcessor(2),
        TopPLogitsWarper(0.9),
    ]
    options = {
        "max_new_tokens": 9,
        "do_sample": do_sample,
        "logits_processor": LogitsProcessorList(processors),
        # Rows end at different steps, and the longest prompt before any other.
        "stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(11)]),
    }
    with float64_softmax():
        together = li.generate(bridge, PROMPTS, PATCH, seed=[5, 6, 7], **options)
        assert len(set(together.lengths.tolist())) == 3
        for row, prompt in enumerate(PROMPTS):
            alone = li.generate(bridge, [prompt], PATCH, seed=5 + row, **options)
            n_new = int(alone.lengths)
            assert together.tokens[row, :n_new].tolist() == alone.tokens[0].tolist()
            assert (together.tokens[row, n_new:] == -1).all()
            assert together.log_probs[row, n_new:].isnan().all()
            torch.testing.assert_close(
                together.log_probs[row, :n_new], alone.log_probs[0], rtol=0, atol=1e-9
            )


def test_padding_on_either_side_of_an_id_tensor():
    bridge = shared_bridge("gpt2")
    lengths = [len(prompt) for prompt in PROMPTS]
    for left in (True, False):
        tokens = torch.full((3, 12), 50)
        mask = torch.zeros(3, 12, dtype=torch.long)
        for row, prompt in enumerate(PROMPTS):
            where = slice(12 - lengths[row], 12) if left else slice(lengths[row])
            tokens[row, where] = torch.tensor(prompt)
            mask[row, where] = 1
        out = li.generate(bridge, tokens, PATCH, attention_mask=mask, max_new_tokens=4)
        assert_equal(out, li.generate(bridge, PROMPTS, PATCH, max_new_tokens=4))
        assert out.prompt_lengths.tolist() == lengths


@pytest.mark.filterwarnings("ignore:the patch .* changes nothing")
@settings(max_examples=20)
@given(data=st.data())
def test_any_patch_on_any_prompts(data):
    bridge = shared_bridge(data.draw(st.sampled_from(["gpt2", "gemma3_text", "qwen3"])))
    layers = st.sets(st.integers(0, 2), min_size=1).map(tuple)
    patch = li.NextTokenPatch(
        layer=data.draw(st.integers(0, 2) | layers),
        strength=data.draw(st.floats(-1, 1)),
        mode=data.draw(st.sampled_from([*MODES])),
        scale=data.draw(st.sampled_from(["raw", "norm"])),
        embedding=data.draw(st.sampled_from(["W_E", "W_E_centred", "W_U"])),
        positions=data.draw(st.sampled_from(["all", "generated"]) | st.sets(st.integers(0, 9))),
        first_position=data.draw(st.integers(0, 3)),
        window=data.draw(st.none() | st.integers(1, 9)),
        gate=data.draw(st.none() | st.floats(0, 8)),
        source=data.draw(st.sampled_from(["true", "random", "shuffled", "current"])),
        seed=data.draw(st.integers(0, 9)),
    )
    ids = st.lists(st.integers(4, D_VOCAB - 1), min_size=1, max_size=8)
    prompts = data.draw(st.lists(ids, min_size=1, max_size=3))
    chunk_size = data.draw(st.none() | st.integers(1, 9))
    with float64_softmax():
        out = li.generate(
            bridge, prompts, patch, max_new_tokens=4, chunk_size=chunk_size, stop_at_eos=False
        )
        row = data.draw(st.integers(0, len(prompts) - 1))
        assert_naive(bridge, out, patch, row=row)


# --- in other words --------------------------------------------------------------------------


@pytest.mark.parametrize("bridge", ["gpt2", "gemma3_text", "mistral"], indirect=True)
@pytest.mark.parametrize("window", [None, 3])
def test_generation_is_teacher_forcing_of_its_own_text(bridge, window):
    patches = [
        None,
        li.NextTokenPatch(layer=1, strength=0.5, window=window),
        li.NextTokenPatch(layer=2, strength=0.5, source="random", positions="generated"),
    ]
    with float64_softmax():
        out = li.generate(bridge, PROMPTS, patches, max_new_tokens=6, stop_at_eos=False)
        for index, patch in enumerate(patches):
            mine = out.of_patch(index)
            log_probs = teacher_forced_log_probs(
                bridge,
                mine.whole.tokens,
                patch,
                attention_mask=mine.whole.mask,
                prompt_length=mine.prompt_lengths,
            )
            for row, start in enumerate(mine.prompt_lengths.tolist()):
                torch.testing.assert_close(
                    log_probs[row, start - 1 : start + 5], mine.log_probs[row], rtol=0, atol=1e-9
                )


def test_strength_zero_changes_nothing():
    bridge = shared_bridge("phi3")
    out = li.generate(bridge, PROMPTS, [None, replace(PATCH, strength=0.0)], max_new_tokens=6)
    # The second goes through the blocks in two rows, where softmax rounds in float32.
    assert_equal(
        replace(out.of_patch(0), patches=()), replace(out.of_patch(1), patches=()), tol=1e-5
    )


def test_a_hook_on_the_embedding_acts_once_a_step():
    """The blocks above the patch run on another embedding, which nobody sees."""
    bridge, widths = shared_bridge("llama"), []

    def look(embedded, hook):
        widths.append(embedded.shape[1])

    with bridge.hooks(fwd_hooks=[("hook_embed", look)]):
        li.generate(bridge, [[5, 6, 7]], PATCH, max_new_tokens=3, stop_at_eos=False)
    assert widths == [3, 1, 1]


class FirstRowEnds(StoppingCriteria):
    """The first of several rows has no third token."""

    def __call__(self, input_ids, *_, **__):
        return (torch.arange(len(input_ids)) == 0) & (len(input_ids) > 1) & (input_ids.shape[1] > 4)


def test_a_row_that_ends_before_the_positions_of_a_trajectory_costs_nobody_the_texts(llama):
    prompts, ends = [[5, 17, 4], [44, 60, 9]], {"stopping_criteria": [FirstRowEnds()]}
    plain = li.generate(llama, prompts, max_new_tokens=6, stop_at_eos=False, **ends)
    assert plain.lengths.tolist() == [2, 6]
    with pytest.warns(UserWarning, match="no trajectory, because a row ended too early: positions"):
        out = li.generate(
            llama,
            prompts,
            max_new_tokens=6,
            stop_at_eos=False,
            trajectory={"positions": [5]},
            **ends,
        )
    assert out.trajectory is None
    assert out.tokens.tolist() == plain.tokens.tolist()


@pytest.mark.parametrize(
    ("n_prompts", "length", "columns"), [(1, 200, [4096]), (3, 200, [1365]), (1, 1100, [953])]
)
def test_longer_prompts_are_read_fewer_columns_at_a_time(monkeypatch, n_prompts, length, columns):
    """A head has scores for each pair of a column and an earlier one."""
    found, begin = [], CachedDecoder.__init__

    def seen(self, *args, chunk_size, **options):
        found.append(chunk_size)
        begin(self, *args, chunk_size=chunk_size, **options)

    bridge = tiny_bridge("llama", max_position_embeddings=2048)
    ids = torch.arange(length).expand(n_prompts, -1) % 90 + 5
    li.generate(bridge, ids[:, :3], max_new_tokens=1)  # checks of the model decode, too
    monkeypatch.setattr(CachedDecoder, "__init__", seen)
    li.generate(bridge, ids, max_new_tokens=1)
    assert found == columns
