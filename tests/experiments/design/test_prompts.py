"""Prompts shared out between the halves."""

import pandas as pd
import pytest
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions import materials
from lens_interventions.experiments.design.prompts import prompt_items
from lens_interventions.materials.docstrings import prose_of
from tests.support.small_loops import SETTINGS


def test_halves_are_even_and_share_registers(llama: TransformerBridge) -> None:
    items = prompt_items(llama, 72, SETTINGS.seed)
    halves = pd.DataFrame(items).groupby(["register", "half"]).size().unstack()
    assert (halves == 2).all(axis=None)


def test_openings_of_unrelated_documents_fill_up(llama: TransformerBridge) -> None:
    items = prompt_items(llama, 320, SETTINGS.seed)
    prompts = {item["text"] for item in items}
    passages = {passage.text for passage in materials.passages(at_least=60)}
    assert (len(prompts), len(passages)) == (320, 60)
    assert len({item["number"] for item in items}) == 320
    by_register = pd.DataFrame(items).groupby(["register", "half"]).size().unstack()
    assert by_register.sum().tolist() == [160, 160]
    assert ((by_register["selection"] - by_register["report"]).abs() <= 1).all()
    assert {prompt.text for prompt in materials.prompts()} <= prompts
    assert {passage.text for passage in materials.passages()} <= passages

    documents = [*materials.python_reference(), *materials.docstring_prose()]
    beginnings = [" ".join(prose_of(document.text).split()) for document in documents]
    holder_of_run: dict[str, int] = {}
    openings = (prompts | passages) - {p.text for p in materials.prompts() + materials.passages()}
    assert len(openings) == 248 + 44
    for opening in openings:
        index = next(i for i, text in enumerate(beginnings) if text.startswith(opening))
        words = documents[index].text.split()
        for run in (" ".join(words[i : i + 13]) for i in range(len(words) - 12)):
            assert holder_of_run.setdefault(run, index) == index
    assert len(set(holder_of_run.values())) == len(openings)

    with pytest.raises(
        ValueError, match=r"there are \d+ prompts on this machine, but 5000 were asked for"
    ):
        prompt_items(llama, 5000, 0)
