"""Which points are the middle of a model, and which documents are read."""

import pytest

from lens_interventions.experiments.design.documents import (
    cluster_of,
    document_beginnings,
    documents_with_components,
    has_components,
    middle,
    one_of_related,
    unrelated_documents,
    without_copies,
)
from lens_interventions.experiments.design.material import CopyingMaterial, text_sequences
from lens_interventions.materials import Document
from lens_interventions.materials.corpora import read_documents
from tests.support.architectures import N_CTX
from tests.support.tiny import shared_bridge


def test_documents_that_share_a_passage_with_another_are_left_out(tmp_path):
    words = [f"word{number}" for number in range(80)]
    texts = {
        "a": words[:30],
        "b": words[15:45],  # shares 15 words with a
        "c": words[32:62],  # shares 13 with b, so is connected with a
        "d": words[62:80],
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(" ".join(text))
    sources = [str(tmp_path / f"{name}.txt") for name in texts]

    def left(clusters):
        return [document.text.split()[0] for _, document in unrelated_documents(sources, clusters)]

    first, *_, last = (cluster_of(source, read_documents(source)[0]) for source in sources)
    assert left({first}) == ["word62"]
    assert left({last}) == ["word0", "word15", "word32"]
    assert left(set()) == ["word0", "word15", "word32", "word62"]


def test_a_document_that_two_sources_have_is_read_once(tmp_path):
    """Read twice, it would count as two samples that agree."""
    shared = [f"{first} " + " ".join(f"word{i} of {first}" for i in range(12)) for first in "xyz"]
    for name, own in (("a", []), ("b", ["another document of some length"])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join([*shared, *own]))
    sources = [str(tmp_path / f"{name}.txt") for name in "ab"]
    kept = without_copies({source: read_documents(source) for source in sources})
    assert [document.text for document in kept[sources[0]]] == shared
    assert [document.text for document in kept[sources[1]]] == ["another document of some length"]
    material = CopyingMaterial(texts=tuple(sources), documents=(3, 3), document_tokens=20)
    read = text_sequences(shared_bridge("llama"), material)
    assert len({sequence.tokens for sequence in read}) == len(read) == 4


def test_one_of_several_documents_that_share_a_passage_is_read():
    """Others would be no independent samples."""
    words = [f"word{number}" for number in range(60)]
    a, b, c = (" ".join(words[start : start + 30]) for start in (0, 15, 30))
    texts = {"one": [Document("0", b, ""), Document("1", "the time of fox", "")]}
    texts["two"] = [Document("0", a, ""), Document("1", c, ""), Document("2", "a dog", "")]
    kept = one_of_related(texts)
    assert {source: [each.title for each in of] for source, of in kept.items()} == {
        "one": ["0", "1"],
        "two": ["2"],
    }


def test_related_documents_are_read_once_where_components_are_measured(llama, tmp_path):
    shared = " ".join(f"word{number}" for number in range(13))
    file = tmp_path / "mine.txt"
    file.write_text("\n\n".join([f"{shared} fox", f"dog {shared}", "the time of the fox"]))
    read = documents_with_components(llama, [str(file)], documents=9, tokens=20, seed=0, least=1)
    assert sorted(each["cluster"] for each in read) == [f"{file}: 0", f"{file}: 2"]


def test_documents_that_leave_nothing_are_refused(tmp_path):
    texts = {"mine": (Document("1", "a", ""), Document("2", "b", ""))}
    with pytest.raises(ValueError, match="no document of mine has two tokens among its first 2"):
        document_beginnings(shared_bridge("llama"), texts, documents=2, tokens=2, seed=0)


def test_documents_that_do_not_fit_the_model_are_refused():
    bridge = shared_bridge("llama")
    texts = {"mine": (Document("1", "the time of fox", ""),)}
    with pytest.raises(ValueError, match=rf"document_tokens makes texts of {N_CTX + 1} tokens"):
        document_beginnings(bridge, texts, documents=1, tokens=N_CTX + 1, seed=0)


@pytest.mark.parametrize(
    ("n_points", "expected"),
    [(2, [0]), (3, [1]), (4, [1]), (6, [2, 3]), (19, list(range(6, 12)))],
)
def test_the_middle_is_a_third_of_the_points_and_never_empty(n_points, expected):
    assert middle([str(point) for point in range(n_points)]).tolist() == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [([1, 5, 5, 6], True), ([1, 5, 6], False), ([1, 5, 5, 5, 5], False), ([5, 5, 5, 1], True)],
)
def test_a_document_needs_two_different_tokens_after_the_first(tokens, expected):
    assert has_components(tokens) == expected


def test_a_beginning_has_no_more_tokens_than_asked_for():
    texts = {"mine": [Document("1", "the time of fox, the people say plasma", "prose")]}
    (found,) = document_beginnings(shared_bridge("llama"), texts, documents=1, tokens=5, seed=0)
    assert len(found["tokens"]) == 5
