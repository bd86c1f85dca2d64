"""Which points are the middle of a model, and which documents are read."""

import pytest

from lens_interventions.experiments.design.documents import (
    cluster_of,
    has_components,
    middle,
    unrelated_documents,
)
from lens_interventions.materials.corpora import read_documents


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
