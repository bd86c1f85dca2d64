"""One bad text among many is named by its number, whichever function reads the corpus."""

import pytest
import torch

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

BRIDGE = shared_bridge("llama")
GOOD = ["the quick brown fox", "people say plasma"]
NO_BOS = {"prepend_bos": False}
SILENT = {**NO_BOS, "progress": False}

READERS = {
    "logit_lens": lambda texts: li.logit_lens(BRIDGE, texts, **NO_BOS),
    "generate": lambda texts: li.generate(BRIDGE, texts, max_new_tokens=1, **NO_BOS),
    "lens_over": lambda texts: li.lens_over(BRIDGE, texts, **SILENT),
    "lens_over, cut": lambda texts: li.lens_over(BRIDGE, texts, max_tokens=8, **SILENT),
    "lens_quality": lambda texts: li.lens_quality(BRIDGE, lambda r, _: r, texts, **SILENT),
    "fit_affine_lens": lambda texts: li.fit_affine_lens(BRIDGE, texts, **SILENT),
    "slope_map": lambda texts: li.slope_map(BRIDGE, texts, **SILENT),
    "train_patch": lambda texts: li.train_patch(BRIDGE, texts, layer=1, rank=2, **SILENT),
    "unlikely_components": lambda texts: li.unlikely_components(BRIDGE, texts, **SILENT),
}


@pytest.mark.parametrize("name", READERS)
def test_a_text_that_cannot_be_read_is_named_by_its_number(name: str) -> None:
    message = "^text 2: the text is empty"
    with left_as_found(BRIDGE), pytest.raises(ValueError, match=message):
        READERS[name]([*GOOD, "", *GOOD])


def test_a_prompt_of_nothing_is_continued_from_its_bos() -> None:
    begun = li.generate(BRIDGE, "", prepend_bos=True, max_new_tokens=2)
    bos = torch.tensor([[BRIDGE.tokenizer.bos_token_id]])
    assert begun.tokens.equal(li.generate(BRIDGE, bos, max_new_tokens=2).tokens)
