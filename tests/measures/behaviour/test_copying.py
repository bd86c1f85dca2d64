"""Copyable tokens and induction targets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from tests.support import reference_measures as naive
from tests.support.short_texts import ids, short_texts


def test_copyable_by_hand():
    #         a      b      c      a     b      d      a     b     c
    tokens = ids("abcabdabc")[None]
    copyable = [False, False, False, True, False, False, True, True, False]
    assert behaviour.copyable(tokens).tolist() == [copyable]
    # the last "bc" goes back to the first, although "b" was followed by "d" since
    assert behaviour.pair_distance(tokens).tolist() == [[0, 0, 0, 3, 0, 0, 3, 6, 0]]
    targets = behaviour.induction_targets(tokens)[0].tolist()
    assert targets == [-1, -1, -1, *map(ord, "bc"), -1, *map(ord, "bda")]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_distances_may_not_fit_into_the_type_of_the_ids(dtype):
    tokens = torch.tensor([[1, 2, *(3 + i % 200 for i in range(254)), 1, 2]])
    narrow = tokens.to(dtype)
    assert behaviour.pair_distance(narrow).tolist() == behaviour.pair_distance(tokens).tolist()
    assert behaviour.pair_distance(narrow)[0, 256] == 256
    targets = behaviour.induction_targets(tokens)
    assert behaviour.induction_targets(narrow).tolist() == targets.tolist()


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


def test_padding_is_no_text():
    text = torch.tensor([[5, 6, 5, 6]])
    padded = torch.cat([text, torch.full((1, 6), -1)], dim=1)
    for function in (behaviour.copyable, behaviour.pair_distance):
        assert function(padded)[0, :4].tolist() == function(text)[0].tolist()
        assert not function(padded)[0, 4:].any()
    assert behaviour.induction_targets(padded)[0, 4:].tolist() == [-1] * 6


def test_a_mask_of_a_tokenizer_is_one_of_numbers():
    tokens, mask = torch.tensor([[5, 6, 5, 6, 5, 6]]), torch.tensor([[1, 1, 1, 1, 0, 0]])
    assert behaviour.copyable(tokens, mask=mask).equal(behaviour.copyable(tokens, mask=mask.bool()))
    assert behaviour.copyable(tokens, mask=mask).any()
