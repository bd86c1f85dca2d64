"""Single tokens by name and id, and the names of ids."""

import numpy as np
import pandas as pd
import pytest
import torch

from lens_interventions import load_model
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model.vocabulary import token_ids, token_strings
from tests.support.tiny import shared_bridge, spaced_tokenizer, tiny_bridge, tiny_model

BRIDGE = shared_bridge("llama")


def test_single_tokens_by_name_and_id():
    (say,) = BRIDGE.tokenizer(" say", add_special_tokens=False)["input_ids"]
    assert token_ids(BRIDGE, [" say", 7]) == [say, 7]
    assert token_ids(BRIDGE, torch.tensor(7)) == [7]
    assert token_ids(BRIDGE, torch.tensor([5, 6])) == token_ids(BRIDGE, np.array([5, 6])) == [5, 6]
    assert token_ids(BRIDGE, [torch.tensor(5), np.int64(6)]) == [5, 6]
    assert token_ids(BRIDGE, BRIDGE.to_tokens(" say", prepend_bos=False)) == [say]
    with pytest.raises(TypeError, match=r"a string or an id, got 5\.0"):
        token_ids(BRIDGE, torch.tensor([5.0]))
    with pytest.raises(ValueError, match=r"not one token of this model but \d"):
        token_ids(BRIDGE, "quixotic")
    with pytest.raises(ValueError, match="token id 4000 is not in"):
        token_ids(BRIDGE, 4000)
    nameless = tiny_bridge("llama")
    nameless.tokenizer = None
    with pytest.raises(ValueError, match="no tokenizer: pass token ids"):
        token_ids(nameless, " say")


@pytest.mark.usefixtures("as_users_run")
def test_a_column_of_a_table_names_tokens():
    assert token_ids(BRIDGE, pd.Series([5, 6])) == [5, 6]


def test_a_tokenizer_that_drops_the_first_space_has_names_with_their_spaces():
    """As the tokenizers of Llama 2 and Mistral, which put one before each text."""
    bridge = load_model(hf_model=tiny_model("llama"), tokenizer=spaced_tokenizer(), device="cpu")
    read = logit_lens(bridge, "when people say plasma", watch=" plasma")
    names = [read.vocab[token] for token in read.tokens[0].tolist()]
    assert names == ["<s>", " when", " people", " say", " plasma"]
    assert read.watched == (int(read.tokens[0, -1]),)
    assert read.grid("watched_rank", token=" plasma").inputs[-1] == "·plasma"
    assert token_ids(bridge, "plasma") == [*read.watched]
    with pytest.raises(ValueError, match=r"' quixotic' is not one token of this model but \d"):
        token_ids(bridge, " quixotic")


def test_names_of_other_tokens_are_what_the_tokenizer_decodes():
    tokenizer = BRIDGE.tokenizer
    ids = range(len(tokenizer))
    assert token_strings(BRIDGE, ids) == {token: tokenizer.decode([token]) for token in ids}


def test_a_word_of_several_tokens_is_told_of_a_space_that_it_lacks() -> None:
    with pytest.raises(ValueError, match="most tokenizers want a space before a word"):
        token_ids(shared_bridge("llama"), "quixotic")
    with pytest.raises(ValueError, match=r"'x', 'o', 't', 'i', 'c'\]$"):
        token_ids(shared_bridge("llama"), " quixotic")
