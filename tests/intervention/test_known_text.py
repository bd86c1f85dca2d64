"""What is known of texts: positions count from each text's first token, whatever the padding."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.known_text import KnownText, select_rows
from lens_interventions.model.tokens import TokenBatch

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]) == 1
TOKENS = torch.tensor([[0, 0, 11, 12, 13], [21, 22, 23, 24, 0]])


def test_positions_tokens_and_what_comes_next():
    text = KnownText.from_batch(TokenBatch(TOKENS, MASK))
    position = text.column_positions()
    assert position.tolist() == [[-1, -1, 0, 1, 2], [0, 1, 2, 3, -1]]
    assert torch.equal(text.at(position)[MASK], TOKENS[MASK])
    assert text.at(torch.tensor([[-1, 3], [-1, 4]])).tolist() == [[11, 13], [21, 24]]
    # The last token has no next one yet, and neither have padding and what lies beyond.
    assert text.has_next(position).int().tolist() == [[0, 0, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert not text.has_next(torch.tensor([[3, 9], [4, 9]])).any()


def test_some_rows_are_what_they_are_alone():
    text = KnownText.from_batch(
        TokenBatch(TOKENS, MASK), prompt_length=torch.tensor([1, 2]), text_seeds=torch.arange(2)
    )
    row = select_rows(text, torch.tensor([1]))
    assert row.tokens.tolist() == [[21, 22, 23, 24, 0]]
    parts = (row.first, row.length, row.prompt_length, row.seed)
    assert [part.tolist() for part in parts] == [[0], [4], [2], [1]]
    assert KnownText.from_batch(TokenBatch(TOKENS, MASK)).prompt_length is None


@pytest.mark.parametrize("given", [-1, 4, torch.tensor([3, 5])])
def test_a_prompt_longer_than_its_text_is_refused(given):
    KnownText.from_batch(TokenBatch(TOKENS, MASK), prompt_length=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match=r"from 0 to the number of tokens \[3, 4\], got"):
        KnownText.from_batch(TokenBatch(TOKENS, MASK), prompt_length=given)


@pytest.mark.parametrize(
    "given",
    [
        {"prompt_length": 2.7},
        {"prompt_length": "a"},
        {"text_seeds": torch.tensor([0.5])},
        {"text_seeds": [2**64, 0]},
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_number_is_refused(given):
    with pytest.raises(TypeError, match=f"{next(iter(given))} must be whole numbers"):
        KnownText.from_batch(TokenBatch(TOKENS, MASK), **given)


def test_scores_and_hooks_refuse_it_too(llama):
    patch = li.NextTokenPatch(layer=1, strength=0.1, positions="generated")
    for score in (li.teacher_forced_log_probs, li.teacher_forced_logits):
        with pytest.raises(ValueError, match=r"number of tokens \[4\], got \[50\]"):
            score(llama, TOKENS[1:, :4], patch, prompt_length=50)
    with pytest.raises(ValueError, match=r"number of tokens \[4\], got \[50\]"):
        patch.fwd_hooks(llama, TOKENS[1:, :4], prompt_length=50)
