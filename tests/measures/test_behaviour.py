"""Measures of repetition, copying and surprisal against hand-worked cases and naive versions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from lens_interventions.measures.behaviour import Loop
from tests.support import reference_measures as naive

# Three symbols make repeats of every kind likely.
short_texts = st.lists(st.integers(0, 2), max_size=24)


def ids(text):
    return torch.tensor([ord(character) for character in text], dtype=torch.long)


# --- rep-n, distinct-n -------------------------------------------------------------------------


def test_rep_n_by_hand():
    # bigrams of "abab": ab ba ab, two of three unique
    assert behaviour.rep_n(ids("abab")[None], 2).item() == pytest.approx(1 / 3)
    assert behaviour.rep_n(ids("abcd")[None], 1).item() == 0
    assert behaviour.rep_n(ids("aaaaa")[None], 1).item() == pytest.approx(4 / 5)


def test_rep_n_of_a_text_without_n_grams_is_nan():
    values = behaviour.rep_n(ids("abc").repeat(2, 1), 3, lengths=torch.tensor([3, 2]))
    assert values[0] == 0
    assert values[1].isnan()


def test_rep_n_looks_at_nothing_past_the_length():
    tokens = torch.stack([ids("abcaaaa"), ids("abczzyy")])
    values = behaviour.rep_n(tokens, 1, lengths=torch.tensor([3, 3]))
    assert values.tolist() == [0, 0]


def test_distinct_n_counts_over_all_texts_and_divides_by_tokens():
    # "ab" and "abc": bigrams ab, ab, bc; two distinct, five tokens
    tokens = torch.stack([ids("ab?"), ids("abc")])
    assert behaviour.distinct_n(tokens, 2, lengths=torch.tensor([2, 3])) == pytest.approx(2 / 5)
    assert math.isnan(behaviour.distinct_n(tokens, 4))
    assert math.isnan(behaviour.distinct_n(tokens[:0], 1))


@given(st.lists(st.lists(st.integers(0, 2), min_size=6, max_size=6), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_diversity_equals_the_naive_version(texts):
    lengths = [6 - i for i in range(len(texts))]
    cut = [text[:length] for text, length in zip(texts, lengths, strict=True)]
    tokens, as_tensor = torch.tensor(texts), torch.tensor(lengths)
    for n in (1, 2, 4):
        expected = [naive.rep_n(text, n) for text in cut]
        found = behaviour.rep_n(tokens, n, lengths=as_tensor).tolist()
        assert found == pytest.approx(expected, nan_ok=True)
        distinct = behaviour.distinct_n(tokens, n, lengths=as_tensor)
        assert distinct == pytest.approx(naive.distinct_n(cut, n), nan_ok=True)


def test_diversity_refuses_what_it_cannot_count():
    tokens = ids("abc")[None]
    with pytest.raises(ValueError, match="n >= 1"):
        behaviour.rep_n(tokens, 0)
    with pytest.raises(ValueError, match="between 0 and the width 3"):
        behaviour.distinct_n(tokens, 1, lengths=torch.tensor([4]))
    with pytest.raises((TypeError, ValueError)):  # the type check may come first
        behaviour.rep_n(tokens, 1, lengths=torch.tensor([3, 3]))


# --- loops -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("What is it? " + "a" * 20, Loop(12, 32, 1)),
        ("Once. " + "ab" * 9 + "a", Loop(6, 25, 2)),  # the last round unfinished
        # the ". " before the first round is the end of a round too
        ("I. " + "the cat sat on the mat. " * 3, Loop(1, 75, 24)),
        ("xyz" * 6, Loop(0, 18, 3)),
        ("Он сказал: " + "да и нет, " * 4, Loop(10, 51, 10)),
        ("🙂" * 16, Loop(0, 16, 1)),
    ],
)
def test_texts_that_end_in_a_loop(text, loop):
    found = behaviour.ending_loop(ids(text))
    assert found == loop
    assert found.length == loop.end - loop.start
    assert found.rounds == pytest.approx(found.length / found.period)


@pytest.mark.parametrize(
    "text",
    [
        "He laughed: ha ha ha.",
        "ha ha ha ha",  # four rounds, but eleven characters are no loop yet
        "so far so good",
        "the cat sat on the mat. the cat sat on the mat. ",  # twice is a figure of speech
        "a" * 40 + ".",  # the loop ended
        "a" * 15,
        "",
    ],
)
def test_texts_that_do_not_end_in_a_loop(text):
    assert behaviour.ending_loop(ids(text)) is None


def test_minimum_rounds_and_length_are_inclusive():
    assert behaviour.ending_loop(ids("a" * 16)) == Loop(0, 16, 1)
    assert behaviour.ending_loop(ids("abcdefgh" * 3)) == Loop(0, 24, 8)
    assert behaviour.ending_loop(ids("abcdefgh" * 3)[1:]) is None
    assert behaviour.ending_loop(ids("abab"), min_rounds=2, min_length=1) == Loop(0, 4, 2)


def test_a_loop_within_the_last_round_of_another_is_not_the_one():
    block = "a" * 17 + "b"
    text = ids(block * 3 + "a" * 17)
    assert behaviour.ending_loop(text) == Loop(0, len(text), 18)
    assert behaviour.find_loops(text) == (Loop(0, len(text), 18),)


def test_loops_that_end_are_found_with_their_ends():
    text = "x" + "ab" * 8 + "stop" + "c" * 20 + "!"
    assert behaviour.find_loops(ids(text)) == (Loop(1, 17, 2), Loop(21, 41, 1))


def test_longest_period_can_be_limited():
    text = ids("the cat sat on the mat. " * 3)
    assert behaviour.find_loops(text, max_period=23) == ()
    assert behaviour.find_loops(text, max_period=24) == (Loop(0, 72, 24),)


def test_ending_loops_stop_at_each_length():
    tokens = torch.stack([ids("a" * 20 + "....")] * 2)
    found = behaviour.ending_loops(tokens, lengths=torch.tensor([20, 24]))
    assert found == [Loop(0, 20, 1), None]


@given(short_texts, st.integers(2, 3), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_loops_equal_the_naive_version(text, min_rounds, min_length):
    tokens = torch.tensor(text, dtype=torch.long)
    options = {"min_rounds": min_rounds, "min_length": min_length}
    found = [(x.start, x.end, x.period) for x in behaviour.find_loops(tokens, **options)]
    assert found == naive.loops(text, min_rounds, min_length)
    last = behaviour.ending_loop(tokens, **options)
    expected = naive.ending_loop(text, min_rounds, min_length)
    assert (last and (last.start, last.end, last.period)) == expected


@pytest.mark.parametrize("options", [{"min_rounds": 1}, {"min_length": 0}, {"max_period": 0}])
def test_a_definition_under_which_everything_loops_is_refused(options):
    with pytest.raises(ValueError, match="a loop needs"):
        behaviour.find_loops(ids("abc"), **options)


# --- survival ----------------------------------------------------------------------------------


def test_survival_by_hand():
    # Four texts of 20 tokens, watched until 20 - 10: loops from 2 and 5, one censored early at 4.
    loops = [Loop(2, 20, 1), Loop(5, 20, 1), None, None]
    curve = behaviour.loop_free_survival(loops, [20, 20, 14, 20], min_length=10)
    assert curve.time.tolist() == list(range(11))
    assert curve.share[1] == 1
    assert curve.share[2] == curve.share[4] == pytest.approx(3 / 4)
    assert curve.share[5] == curve.share[10] == pytest.approx(3 / 4 * 1 / 2)
    assert curve.at_risk.tolist() == [4, 4, 4, 3, 3, 2, 1, 1, 1, 1, 1]
    inside = slice(2, None)
    assert math.isnan(curve.low[1])
    assert (curve.low[inside] < curve.share[inside]).all()
    assert (curve.share[inside] < curve.high[inside]).all()


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_survival_equals_the_product_formula(samples):
    times, looped = zip(*samples, strict=True)
    lengths = [time + 4 for time in times]
    loops = [
        Loop(time, time + 4, 1) if event else None
        for time, event in zip(times, looped, strict=True)
    ]
    curve = behaviour.loop_free_survival(loops, lengths, min_length=4)
    assert curve.share == pytest.approx(naive.kaplan_meier(times, looped), abs=1e-12)


def test_survival_of_texts_too_short_to_loop_or_none():
    curve = behaviour.loop_free_survival([None, None], [3, 0])
    assert curve.share.tolist() == [1]
    with pytest.raises(ValueError, match="at least one text"):
        behaviour.loop_free_survival([], [])
    with pytest.raises(ValueError, match="min_length that the loops were found with"):
        behaviour.loop_free_survival([Loop(10, 20, 1)], [20])


# --- copying -----------------------------------------------------------------------------------


def test_copyable_by_hand():
    #         a      b      c      a     b      d      a     b     c
    tokens = ids("abcabdabc")[None]
    copyable = [False, False, False, True, False, False, True, True, False]
    assert behaviour.copyable(tokens).tolist() == [copyable]
    # the last "bc" goes back to the first, although "b" was followed by "d" since
    assert behaviour.pair_distance(tokens).tolist() == [[0, 0, 0, 3, 0, 0, 3, 6, 0]]
    targets = behaviour.induction_targets(tokens)[0].tolist()
    assert targets == [-1, -1, -1, *map(ord, "bc"), -1, *map(ord, "bda")]


def test_a_pair_may_overlap_the_one_before_it():
    assert behaviour.copyable(ids("aaaa")[None]).tolist() == [[False, True, True, False]]


@given(short_texts.filter(bool))
@settings(max_examples=200, deadline=None)
def test_copying_equals_the_naive_version(text):
    tokens = torch.tensor([text])
    distance = naive.pair_distance(text)
    assert behaviour.pair_distance(tokens).tolist() == [distance]
    assert behaviour.copyable(tokens).tolist() == [[d > 0 for d in distance]]
    assert behaviour.induction_targets(tokens).tolist() == [naive.induction_targets(text)]


@pytest.mark.parametrize("side", ["left", "right"])
@given(text=short_texts.filter(bool), padding=st.lists(st.integers(0, 2), max_size=5))
@settings(max_examples=60, deadline=None)
def test_padding_changes_nothing(side, text, padding):
    real = [False] * len(padding)
    row, mask = padding + text, real + [True] * len(text)
    inside = slice(len(padding), None)
    if side == "right":
        row, mask, inside = text + padding, mask[::-1], slice(len(text))
    tokens, mask = torch.tensor([row]), torch.tensor([mask])
    distance = behaviour.pair_distance(tokens, mask=mask)
    targets = behaviour.induction_targets(tokens, mask=mask)
    assert distance[0, inside].tolist() == naive.pair_distance(text)
    assert targets[0, inside].tolist() == naive.induction_targets(text)
    assert not behaviour.copyable(tokens, mask=mask)[~mask].any()
    assert (targets[~mask] == -1).all()


# --- surprisal ---------------------------------------------------------------------------------


def test_bins_close_on_the_left_and_are_open_outside():
    values = torch.tensor([[-5.0, 0.99, 1.0, 1.5], [2.0, 4.0, math.inf, math.nan]])
    bins = behaviour.bin_by(values, [1.0, 2.0, 4.0])
    assert bins.index.tolist() == [[0, 0, 1, 1], [2, 3, 3, -1]]
    assert bins.labels == ("below 1", "1 to 2", "2 to 4", "4 and more")


@pytest.mark.parametrize("edges", [[], [2.0, 1.0], [1.0, 1.0], [0.0, math.inf]])
def test_bad_edges_are_refused(edges):
    with pytest.raises(ValueError, match="increasing order"):
        behaviour.bin_by(torch.zeros(1, 1), edges)


def test_bin_totals_by_hand():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, math.nan, 6.0]])
    bins = torch.tensor([[0, 1, 0], [1, 1, -1]])
    totals, counts = behaviour.bin_totals(values, bins, 3)
    assert totals.tolist() == [[4, 2, 0], [0, 4, 0]]
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="between -1 and 0"):
        behaviour.bin_totals(values, bins, 1)


def test_unigram_surprisal_by_hand():
    surprisal = behaviour.unigram_surprisal(torch.tensor([3, 1, 0]), smoothing=1.0)
    expected = [-math.log(4 / 7), -math.log(2 / 7), -math.log(1 / 7)]
    assert surprisal.tolist() == pytest.approx(expected, abs=1e-12)
    probabilities = (-behaviour.unigram_surprisal(torch.tensor([3, 1, 0]))).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)


def test_unigram_surprisal_refuses_infinite_surprise():
    with pytest.raises(ValueError, match="smoothing > 0"):
        behaviour.unigram_surprisal(torch.tensor([1, 0]), smoothing=0.0)
    with pytest.raises(ValueError, match="counts >= 0"):
        behaviour.unigram_surprisal(torch.tensor([1, -1]))
