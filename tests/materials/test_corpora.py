"""Texts by name: what a name stands for, how much is read, and names that say nothing."""

from pathlib import Path

import pytest

from lens_interventions import experiments, materials
from lens_interventions.experiments.design.material import CopyingMaterial
from lens_interventions.experiments.design.trained_patches.settings import TrainedPatchSettings
from lens_interventions.materials import corpora
from lens_interventions.materials.corpora import python_code, read_documents
from tests.support.pages import ROOT

DESCRIBED = {
    "docs/how-to/texts.md": (ROOT / "docs" / "how-to" / "texts.md").read_text(),
    **{
        kind.__name__: kind.__doc__
        for kind in (
            CopyingMaterial,
            TrainedPatchSettings,
            experiments.SmallNetworkSettings,
            experiments.PreservationSettings,
            experiments.RecallSettings,
            experiments.SlopesSettings,
            experiments.UnlikelySettings,
        )
    },
}


@pytest.mark.parametrize("where", DESCRIBED)
def test_every_corpus_is_named_where_texts_are_chosen(where: str) -> None:
    assert [name for name in corpora._NAMED if f'"{name}"' not in DESCRIBED[where]] == []


def test_own_texts_and_files_are_read_whole(tmp_path: Path) -> None:
    assert read_documents("prose") == materials.prose()
    assert read_documents("python_reference") == materials.python_reference()
    file = tmp_path / "texts.txt"
    file.write_text("one\n\ntwo")
    found = [(document.title, document.text) for document in read_documents(str(file))]
    assert found == [("0", "one"), ("1", "two")]


@pytest.mark.parametrize(("split", "wanted"), [("", "train"), (":test", "test")])
def test_of_a_data_set_the_beginning_is_read(
    monkeypatch: pytest.MonkeyPatch, split: str, wanted: str
) -> None:
    asked = []

    def column(*arguments: str, **options: object) -> list[str]:
        asked.append((arguments, options))
        return ["a text"]

    monkeypatch.setattr(corpora, "dataset_column", column)
    (document,) = read_documents(f"dataset:owner/name:body{split}")
    assert document.text == "a text"
    limit = corpora.DOCUMENTS
    assert asked == [(("owner/name", "body"), {"split": wanted, "limit": limit})]
    assert 0 < limit <= 10_000


@pytest.mark.parametrize("source", ["dataset:wiki", "dataset:", "dataset:a::b", "dataset:a:b:c:d"])
def test_a_data_set_without_a_column_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="names no column of a data set: expected dataset:NAME"):
        read_documents(source)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.txt: give a file, python_reference, prose"):
        read_documents(str(tmp_path / "no.txt"))


def test_code_begins_with_a_definition() -> None:
    documents = python_code()
    assert len(documents) > 100
    assert len({document.title for document in documents}) == len(documents)
    assert all(document.text.startswith(("def ", "class ")) for document in documents)
    assert max(len(document.text) for document in documents) == 8192
    assert "dataclasses" in {document.title for document in documents}


def test_a_text_that_is_not_unicode_is_named(tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "fine"}\n{"text": "say \\ud83d plasma"}')
    with pytest.raises(ValueError, match=r"character 4 of text 1 of .*texts\.jsonl is half of a"):
        read_documents(str(file))
