"""Two prompts side by side: what matches, and what has no partner."""

import pytest
import torch

from lens_interventions.drawing.labels import visible
from lens_interventions.lens.alignment import align
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.plots import plot_side_by_side
from tests.support.tiny import shared_bridge

A, B, C, D, E, F = 20, 21, 22, 23, 24, 25


def read(*ids, **options):
    return logit_lens(shared_bridge("llama"), list(ids), **options)


def panels(first, second):
    """The names of the two panels in a figure of both."""
    notes = plot_side_by_side(first, second, "entropy").layout.annotations
    return [note.text.removeprefix("<b>").removesuffix("</b>") for note in notes[:2]]


def test_replaced_tokens_match_in_place_and_the_rest_as_in_a_diff():
    first, second = read(A, B, C, D), read(A, E, B, A, C, D)
    pair = align(first, second)
    assert pair.first.positions.tolist() == [[0, 1, 2, 3]]
    assert pair.second.positions.tolist() == [[0, 2, 4, 5]]
    first, second = read(A, B, C, D), read(A, E, C, D, B)
    pair = align(first, second)
    # B became E; the second has one more B.
    assert pair.first.positions.tolist() == pair.second.positions.tolist() == [[0, 1, 2, 3]]
    texts = [first.vocab[token] for token in (A, B, C, D)]
    named = [pair.first.vocab[token] for token in pair.first.tokens[0].tolist()]
    assert named == [texts[0], f"{texts[1]}/{second.vocab[E]}", *texts[2:]]
    assert pair.left_out == ([], [visible(second.vocab[B])])


def test_an_aligned_side_can_be_aligned_again():
    first, second = read(A, B, C), read(A, D, C)
    texts = [first.vocab[B], second.vocab[D]]
    again = align(align(first, second).first, read(A, E, D)).first
    named = [again.vocab[token] for token in again.tokens[0].tolist()]
    third = read(A, E, D).vocab
    assert named[1:] == ["/".join([*texts, third[E]]), f"{first.vocab[C]}/{third[D]}"]


def test_the_numbers_stay_with_their_columns():
    first, second = read(A, B, C), read(D, A, B, E)
    pair = align(first, second)
    torch.testing.assert_close(pair.first.entropy, first.entropy)
    torch.testing.assert_close(pair.second.entropy, second.entropy[..., 1:])
    assert panels(pair.first, pair.second) == ["first", "second"]


def test_sides_of_different_texts_are_not_called_clean_and_patched():
    for second in (read(A, E, C), read(A, E, B, C)):  # one replaced, one put in
        pair = align(read(A, B, C), second)
        assert panels(pair.first, pair.second) == ["first", "second"]
    same = align(read(A, B), read(A, B))
    assert panels(same.first, same.second) == ["clean", "patched"]


def test_what_has_nothing_in_common_is_refused():
    with pytest.raises(ValueError, match="no matching tokens"):
        align(read(A, A, A), read(B))
    with pytest.raises(ValueError, match="different points"):
        align(read(A, B), read(A, B, points=[0, -1]))
    several = logit_lens(shared_bridge("llama"), [[A, B], [A, C]])
    with pytest.raises(ValueError, match=r"one prompt of each.*trajectory\.prompt\(i\)"):
        align(several, several)


def test_pairs_of_two_alignments_are_told_apart():
    one = align(read(A, B, C), read(A, D, C)).first
    other = align(read(A, B, E), read(A, D, E)).first
    pair = align(one, other)
    texts = [one.vocab[token] for token in one.tokens[0].tolist()]
    for side in (pair.first, pair.second):
        named = [side.vocab[token] for token in side.tokens[0].tolist()]
        assert named == [*texts[:2], f"{texts[2]}/{other.vocab[E]}"]


def test_pairs_of_different_tokens_are_no_match():
    """Each alignment made up the same id for its own pair."""
    one = align(read(A, B, C, D), read(A, D, C, D)).first
    other = align(read(A, C, E, D), read(A, C, F, D)).first
    pair = align(one, other)
    for side in (pair.first, pair.second):
        assert C in side.tokens[0].tolist()
    named = one.vocab[int(one.tokens[0, 1])], other.vocab[int(other.tokens[0, 2])]
    assert pair.left_out == tuple([visible(text)] for text in named)
