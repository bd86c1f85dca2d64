"""What is read in a run: documents and counts."""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions import materials
from lens_interventions.experiments import RunDirectoryError
from lens_interventions.experiments.design.documents import document_beginnings
from lens_interventions.experiments.preservation import preservation
from lens_interventions.experiments.preservation.stages import (
    count_tokens,
    plan,
    text_digest,
)
from lens_interventions.materials.corpora import read_documents
from tests.support.small_preservation import SMALL, long_bridge
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("without_gradients", "few_templates")


def test_counts_are_of_whole_documents(llama: TransformerBridge) -> None:
    counts = count_tokens(llama, "prose", text_digest(materials.prose()), ())
    assert counts["document"].nunique() == 40
    assert counts["count"].sum() > 10_000
    assert not counts.duplicated(["document", "token"]).any()


def test_a_text_that_is_there_twice_is_read_and_counted_once(
    llama: TransformerBridge, tmp_path: Path
) -> None:
    mine = str(tmp_path / "mine.txt")
    Path(mine).write_text("\n\n".join(f"the time of fox {n}" for n in "abcab"))
    documents = read_documents(mine)
    counts = count_tokens(llama, mine, text_digest(documents), ())
    chosen = document_beginnings(llama, {mine: documents}, documents=9, tokens=20, seed=0)
    assert sorted(document["cluster"] for document in chosen) == [f"{mine}: {n}" for n in range(3)]
    assert {*counts["document"]} == {document["cluster"] for document in chosen}


def test_a_document_that_two_sources_have_is_counted_once(
    llama: TransformerBridge, tmp_path: Path
) -> None:
    """Otherwise a token would be common because its own document has a copy."""
    texts = [f"the time of fox {n}" for n in "abc"]
    sources = [str(tmp_path / name) for name in ("one.txt", "two.txt")]
    Path(sources[0]).write_text("\n\n".join(texts))
    Path(sources[1]).write_text("\n\n".join(["a fox of another time", *texts[1:]]))
    settings = replace(SMALL, texts=tuple(sources), batch=2)
    units = [unit for unit in plan(llama, settings, {}) if unit.table == "counts"]
    counts = pd.concat([unit.measure(llama, **unit.parameters) for unit in units])
    assert sorted(counts["document"].unique()) == [
        *(f"{sources[0]}: {n}" for n in range(3)),
        f"{sources[1]}: 0",
    ]


def test_a_text_that_changes_while_a_run_is_unfinished_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "mine.txt"
    words = ["the", "quick", "brown", "fox", "and", "the", "lazy", "people", "say"]
    rng = random.Random(0)
    beginnings = "\n\n".join(" ".join(rng.choices(words, k=36)) for _ in range(4))
    text.write_text(beginnings)
    settings = replace(SMALL, texts=(str(text),))
    preservation(long_bridge, settings=settings, out=tmp_path / "run")
    # Behind what is read, but it counts for the rarity.
    text.write_text(f"{beginnings} and the lazy people say")
    with pytest.raises(RunDirectoryError, match=r"counts.*has a text file changed"):
        preservation(long_bridge, settings=settings, out=tmp_path / "run")
    planned = text_digest(materials.prose())
    with pytest.raises(ValueError, match=r"mine\.txt differs from the text that"):
        count_tokens(shared_bridge("llama"), str(text), planned, ())
