"""Exact loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from lens_interventions.measures.behaviour import Loop
from tests.support import reference_measures as naive
from tests.support.short_texts import ids, short_texts


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


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("search", [behaviour.find_loops, behaviour.ending_loop])
def test_one_text_at_a_time_is_searched(search):
    with pytest.raises(ValueError, match=r"got shape \(2, 20\): pass one row, or use ending_loops"):
        search(torch.zeros(2, 20, dtype=torch.long))


def test_padding_is_no_loop():
    padded = torch.tensor([5, 6, 7, *[-1] * 20])
    for function in (behaviour.find_loops, behaviour.ending_loop):
        with pytest.raises(ValueError, match="ids below 0 are padding"):
            function(padded)
