"""Texts and ids as padded batches."""

import numpy as np
import pytest
import torch

from lens_interventions.lens.lens_over import lens_over
from lens_interventions.model.tokens import token_batch
from lens_interventions.model.vocabulary import token_ids
from tests.support.architectures import N_CTX
from tests.support.tiny import D_VOCAB, shared_bridge

BRIDGE = shared_bridge("llama")


def test_texts_are_padded_on_the_right_and_keep_their_own_tokens():
    texts = ["the quick brown fox", "people say"]
    batch = token_batch(BRIDGE, texts)
    for row, text in enumerate(texts):
        alone = BRIDGE.to_tokens(text)[0]
        assert batch.tokens[row, batch.mask[row]].tolist() == alone.tolist()
        assert batch.mask[row].tolist() == [True] * len(alone) + [False] * (
            batch.tokens.shape[1] - len(alone)
        )
    assert batch.lengths.tolist() == batch.mask.sum(-1).tolist()
    assert batch.padded
    assert not batch.left_padded


def test_the_bos_is_the_callers_choice():
    with_bos, without = (
        token_batch(BRIDGE, "the fox", prepend_bos=choice).tokens[0].tolist()
        for choice in (True, False)
    )
    assert with_bos == [BRIDGE.tokenizer.bos_token_id, *without]


def test_an_empty_text_is_the_bos_where_there_is_one():
    bos = BRIDGE.tokenizer.bos_token_id
    assert token_batch(BRIDGE, ["", "fox"], prepend_bos=True).tokens[0, 0] == bos
    assert token_batch(BRIDGE, "").tokens.tolist() == BRIDGE.to_tokens("").tolist() == [[bos]]


def test_positions_count_from_the_first_real_token():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    batch = token_batch(BRIDGE, torch.full((3, 4), 5), attention_mask=mask)
    assert batch.positions.tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch.left_padded


@pytest.mark.parametrize(
    ("side", "tokens", "mask"),
    [
        ("left", [[7, 4, 5], [4, 5, 6], [7, 7, 4]], [[0, 1, 1], [1, 1, 1], [0, 0, 1]]),
        ("right", [[4, 5, 7], [4, 5, 6], [4, 7, 7]], [[1, 1, 0], [1, 1, 1], [1, 0, 0]]),
    ],
)
def test_padding_goes_to_one_end_and_none_is_left_over(side, tokens, mask):
    given = torch.tensor([[7, 7, 4, 5, 7], [7, 4, 5, 6, 7], [4, 7, 7, 7, 7]])
    batch = token_batch(BRIDGE, given, attention_mask=given != 7).padded_on(side)
    assert batch.tokens.tolist() == tokens
    assert batch.mask.int().tolist() == mask


@pytest.mark.parametrize(
    "ids",
    [
        [4, 5, 6],
        [[4, 5, 6]],
        [np.array([4, 5, 6])],
        [np.array([6, 5, 4])[::-1]],
        [np.array([4, 5, 6], dtype=">i4")],
        torch.tensor([4, 5, 6]),
        torch.tensor([[4, 5, 6]]),
    ],
)
def test_ids_in_any_form(ids):
    assert token_batch(BRIDGE, ids).tokens.tolist() == [[4, 5, 6]]


@pytest.mark.parametrize(
    ("argument", "options", "error", "message"),
    [
        ("", {"prepend_bos": False}, ValueError, "^the text is empty: .* or prepend_bos=True"),
        (["fox", ""], {"prepend_bos": False}, ValueError, "^text 1: the text is empty"),
        (["fox", "ab\ud800"], {}, ValueError, "^text 1: character 2"),
        ([[4], []], {}, TypeError, "^text 1: expected a non-empty list of integer"),
        (["fox", "the fox " * N_CTX], {}, ValueError, "^text 1: .* do not fit"),
        ([[4], [D_VOCAB]], {}, ValueError, "^text 1: token ids must be in"),
        ([], {}, TypeError, "non-empty list of texts"),
        ([4, 5], {"prepend_bos": True}, ValueError, "prepend_bos=True goes with texts"),
        ([4, 2**70], {}, TypeError, "expected a non-empty list of integer"),
        (torch.zeros(0, 3, dtype=torch.long), {}, ValueError, "no tokens to read"),
        (torch.zeros(1, 3), {}, TypeError, "integer token ids of shape"),
        (torch.tensor([[D_VOCAB]]), {}, ValueError, "another model's tokenizer"),
        ([4] * (N_CTX + 1), {}, ValueError, f"do not fit the model's context of {N_CTX}"),
        ("the fox " * N_CTX, {}, ValueError, "do not fit the model's context"),
        (torch.ones(1, 3).long(), {"attention_mask": torch.ones(1, 2)}, ValueError, "has shape"),
        (
            torch.ones(1, 3).long(),
            {"attention_mask": torch.tensor([[1, 0, 1]])},
            ValueError,
            "has a gap",
        ),
        (torch.ones(1, 3).long(), {"attention_mask": torch.zeros(1, 3)}, ValueError, "without any"),
        ("fox", {"attention_mask": torch.ones(1, 3)}, ValueError, "goes with a tensor"),
    ],
)
def test_bad_input_is_named(argument, options, error, message):
    with pytest.raises(error, match=message):
        token_batch(BRIDGE, argument, **options)


@pytest.mark.usefixtures("as_users_run")
def test_a_missing_id_is_named():
    with pytest.raises(TypeError, match=r"^text 1: expected a non-empty list of integer .*None"):
        token_batch(BRIDGE, [[4], [None]])


def test_half_of_a_surrogate_pair_is_refused():
    message = r"character 2 of the text is half of a surrogate pair \('\\ud800'\)"
    for call in (
        lambda: token_batch(BRIDGE, "ab\ud800"),
        lambda: token_ids(BRIDGE, "ab\ud800"),
        lambda: lens_over(BRIDGE, ["ab\ud800"], max_tokens=4, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            call()
