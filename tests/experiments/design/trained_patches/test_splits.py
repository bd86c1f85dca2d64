"""The windows to train on, to choose by and to measure share no passage."""

from collections import Counter
from dataclasses import replace

import networkx
import pytest
import torch

from lens_interventions.experiments.design.sequences import beginning, token_list
from lens_interventions.experiments.design.trained_patches.splits import (
    _windows,
    second_copies,
    windows_by_part,
)
from lens_interventions.materials.corpora import read_documents
from lens_interventions.materials.shingles import shingles
from tests.support.small_reader import SMALL
from tests.support.tiny import tiny_bridge

# Windows of 120 bytes, so that two documents have one in common only if they share a passage.
SETTINGS = replace(
    SMALL,
    texts=("python_reference",),
    windows=(400, 60),
    options=replace(SMALL.options, window=120),
)


@pytest.fixture(scope="module")
def bridge():
    return tiny_bridge("llama", dtype=torch.float32)


@pytest.fixture(scope="module")
def documents():
    return list(read_documents("python_reference"))


@pytest.fixture(scope="module")
def parts(bridge, documents):
    """The windows of each part, as their cluster and the titles of documents with those tokens."""
    bos, size = beginning(bridge), SETTINGS.options.window
    titles = {}
    for document in documents:
        tokens = token_list(bridge, document.text)
        for start in range(0, len(tokens), size - len(bos)):
            window = (*bos, *tokens[start : start + size - len(bos)])
            titles.setdefault(window, set()).add(document.title)
    found = windows_by_part(bridge, SETTINGS)
    assert {len(window["tokens"]) for windows in found.values() for window in windows} == {size}
    return {
        part: [(window["cluster"], titles[tuple(window["tokens"])]) for window in windows]
        for part, windows in found.items()
    }


def test_no_two_parts_share_a_passage(documents, parts):
    texts = {document.title: document.text for document in documents}
    known = {
        part: set().union(*(shingles(texts[title]) for _, titles in of_part for title in titles))
        for part, of_part in parts.items()
    }
    assert not known["training"] & known["measured"]
    assert not known["training"] & known["choosing"]
    assert not known["choosing"] & known["measured"]
    measured = [title for _, titles in parts["measured"] if len(titles) == 1 for title in titles]
    assert max(Counter(measured).values()) <= SETTINGS.per_document


def test_documents_that_share_a_passage_are_one_cluster(documents, parts):
    graph = networkx.Graph()
    graph.add_nodes_from(document.title for document in documents)
    first = {}
    for document in documents:
        others = {first.setdefault(run, document.title) for run in shingles(document.text)}
        graph.add_edges_from((document.title, other) for other in others)
    component = {
        title: number
        for number, titles in enumerate(networkx.connected_components(graph))
        for title in titles
    }
    windows = [window for of_part in parts.values() for window in of_part]
    pairs = {(cluster, component[title]) for cluster, titles in windows for title in titles}
    clusters, components = zip(*pairs, strict=True)
    assert len(set(clusters)) == len(set(components)) == len(pairs)
    n_titles = len(set().union(*(titles for _, titles in windows)))
    assert len(pairs) < n_titles


@pytest.mark.parametrize(("samples", "penalty"), [(10, 0.0), (0, 1.0)])
def test_samples_and_their_penalty_go_together(samples, penalty):
    options = replace(SETTINGS.options, change_penalty=penalty)
    with pytest.raises(ValueError, match="must both be above 0, or neither"):
        replace(SETTINGS, samples=samples, options=options)


@pytest.mark.parametrize("samples", [9, -1])
def test_a_tenth_of_the_samples_must_be_a_text(samples):
    options = replace(SETTINGS.options, change_penalty=1.0)
    with pytest.raises(ValueError, match=f"samples must be 0 or at least 10, got {samples}"):
        replace(SETTINGS, samples=samples, options=options)


def test_copies_are_those_that_report(bridge):
    assert len(second_copies(bridge, SETTINGS)) == SETTINGS.copies


@pytest.mark.parametrize(("more", "n"), [(0, 1), (1, 0)])
def test_a_document_of_one_window_has_one(bridge, more, n):
    text = "the people say that the time they mean is the other time"
    length = len(token_list(bridge, text)) + len(beginning(bridge)) + more
    settings = replace(SETTINGS, options=replace(SETTINGS.options, window=length))
    assert len(_windows(bridge, settings, [(text, "a")], 5, None)) == n
