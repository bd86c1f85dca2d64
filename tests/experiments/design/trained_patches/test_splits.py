"""The windows to train on, to choose by and to measure share no passage."""

from dataclasses import replace

import pandas as pd
import torch

from lens_interventions.experiments.design.trained_patches.splits import windows_by_part
from lens_interventions.materials.corpora import read_documents
from lens_interventions.materials.shingles import shingles
from tests.support.small_reader import SMALL
from tests.support.tiny import tiny_bridge


def test_no_two_parts_share_a_passage():
    settings = replace(SMALL, texts=("python_reference",), windows=(400, 60))
    parts = windows_by_part(tiny_bridge("llama", dtype=torch.float32), settings)
    titles = {
        part: {window["cluster"].partition(": ")[2] for window in windows}
        for part, windows in parts.items()
    }
    texts = {document.title: document.text for document in read_documents("python_reference")}
    known = {
        part: set().union(*(shingles(texts[title]) for title in of_part))
        for part, of_part in titles.items()
    }
    assert not known["training"] & known["measured"]
    assert not known["training"] & known["choosing"]
    assert not known["choosing"] & known["measured"]
    by_document = pd.Series([window["cluster"] for window in parts["measured"]]).value_counts()
    assert by_document.max() <= settings.per_document
    assert {len(window["tokens"]) for windows in parts.values() for window in windows} == {24}
