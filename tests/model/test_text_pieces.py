"""Long texts in pieces: nothing is lost, and every piece begins as the model's texts do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_interventions.model.text_pieces import (
    bos_id,
    cut,
    pieces_of_each,
    token_pieces,
    token_rows,
)
from tests.support.tiny import shared_bridge

BOS = 0
LENGTHS = st.integers(2, 9)


@given(st.lists(st.integers(1, 50), max_size=30), LENGTHS)
def test_every_piece_of_a_text_that_begins_with_bos_does_too(body, length):
    pieces = cut(torch.tensor([BOS, *body]), length, bos=BOS)
    assert all(int(piece[0]) == BOS for piece in pieces)
    assert all(len(piece) <= length for piece in pieces)
    # All but the last are as long as they may be.
    assert all(len(piece) == length for piece in pieces[:-1])
    assert [token for piece in pieces for token in piece[1:].tolist()] == body


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), LENGTHS)
def test_a_text_without_bos_is_cut_as_it_is(body, length):
    row = torch.tensor(body)
    for bos in (None, BOS):
        pieces = cut(row, length, bos=bos)
        assert torch.cat(pieces).equal(row)
        assert all(len(piece) == length for piece in pieces[:-1])


def test_the_bridge_says_what_its_texts_begin_with():
    bridge = shared_bridge("llama")
    text = "the people say that the time they mean is the other time"
    whole = bridge.to_tokens(text)[0]
    bos = bos_id(bridge)
    assert bos == bridge.tokenizer.bos_token_id == whole[0]
    pieces = list(token_pieces(bridge, [text], length=5))
    assert len(pieces) > 2
    assert [int(piece[0]) for piece in pieces] == [bos] * len(pieces)
    assert torch.cat([piece[1:] for piece in pieces]).equal(whole[1:])
    # A user who leaves it out gets none.
    ((first, second, *_),) = pieces_of_each(bridge, [text], length=5, prepend_bos=False)
    assert torch.cat([first, second]).equal(whole[1:11])


def test_an_iterator_that_was_read_is_no_text(llama):
    texts = iter(["the people say"])
    assert len(list(token_rows(llama, texts))) == 1
    with pytest.raises(ValueError, match="an iterator, such as that of sample_texts, gives its"):
        list(token_rows(llama, texts))


def test_ids_among_texts_are_read_as_they_are(llama):
    """Whether texts begin with BOS is no question for ids."""
    text, ids = "the people say", torch.tensor([5, 6, 7])
    rows = list(token_rows(llama, [text, ids], prepend_bos=False))
    assert rows[0].equal(llama.to_tokens(text, prepend_bos=False)[0])
    assert rows[1].equal(ids)
