"""rep-n and distinct-n."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.measures import behaviour
from tests.support import reference_measures as naive
from tests.support.short_texts import ids


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


def test_padding_is_not_counted_as_tokens():
    padded = torch.cat([ids("abcd")[None], torch.full((1, 20), -1)], dim=1)
    for measure in (
        lambda tokens, **given: behaviour.rep_n(tokens, 1, **given).tolist(),
        lambda tokens, **given: behaviour.distinct_n(tokens, 1, **given),
        behaviour.ending_loops,
    ):
        with pytest.raises(ValueError, match="padding, not tokens: pass lengths="):
            measure(padded)
        assert measure(padded, lengths=torch.tensor([4])) == measure(padded[:, :4])


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


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("count", [behaviour.rep_n, behaviour.distinct_n])
def test_one_text_is_a_batch_of_one(count):
    with pytest.raises(ValueError, match=r"got shape \(3,\): .*tokens\[None\]"):
        count(ids("abc"), 2)
