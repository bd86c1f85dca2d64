"""What small networks are trained on."""

import json
from dataclasses import replace

import pytest

from lens_interventions.experiments.design.small_networks.corpus import corpus_of
from tests.support.small_scratch import SMALL


def test_held_out_windows_share_no_run_with_the_training_text():
    corpus = corpus_of(SMALL.corpus)
    runs = {tuple(run) for run in corpus.training.unfold(0, 24, 1).tolist()}
    for window in corpus.windows:
        assert runs.isdisjoint(tuple(run) for run in window.unfold(0, 24, 1).tolist())
    assert corpus.training[0] == 0
    assert corpus.left_out == 0
    assert "".join(corpus.tokenizer.decode(corpus.windows[0])) != ""


def text_file(file, word):
    texts = (" ".join(f"{word}{n}x{i}" for i in range(100)) for n in range(20))
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))


def test_text_that_was_written_anew_is_read_anew(tmp_path):
    file = tmp_path / "texts.jsonl"
    settings = replace(SMALL, texts=(str(file),)).corpus
    text_file(file, "w")
    first = corpus_of(settings)
    assert corpus_of(settings) is first
    text_file(file, "longer")
    assert corpus_of(settings).digest() != first.digest()


def test_windows_with_a_passage_of_the_training_text_are_left_out(tmp_path):
    """Every document says the same few words between its own: too few for a repeated passage."""
    shared = "quick zebras jump over lazy foxes"
    file = tmp_path / "texts.jsonl"
    texts = (
        " ".join(f"w{n}x{i}" for i in range(40))
        + f" {shared} "
        + " ".join(f"v{i}y{n}" for i in range(40))
        for n in range(20)
    )
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    corpus = corpus_of(replace(SMALL, texts=(str(file),)).corpus)
    assert corpus.left_out > 0
    kept = "".join(corpus.tokenizer.batch_decode(corpus.windows))
    assert "w" in kept
    assert shared in corpus.tokenizer.decode(corpus.training)
    assert shared not in kept


def test_short_windows_that_stand_in_the_training_text_are_left_out(tmp_path):
    file = tmp_path / "texts.jsonl"
    shared = " ".join(f"w{i}x" for i in range(30))
    texts = (f"{shared} {' '.join(f'v{i}y{n}' for i in range(170))}" for n in range(20))
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    corpus = corpus_of(replace(SMALL, texts=(str(file),), context=16, decoded=0).corpus)
    assert corpus.left_out > 0
    training = corpus.training.tolist()
    runs = {tuple(training[i : i + 16]) for i in range(len(training) - 15)}
    assert len(corpus.windows)
    assert not runs & {tuple(window) for window in corpus.windows.tolist()}


def test_a_single_document_is_refused(tmp_path):
    """It is held out, and nothing is left to train on."""
    file = tmp_path / "book.txt"
    file.write_text(" ".join(f"w{n}" for n in range(400)))
    with pytest.raises(ValueError, match="0 documents to train on and 1 to hold out"):
        corpus_of(replace(SMALL, texts=(str(file),)).corpus)


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary must be at least 257.*got 256"):
        replace(SMALL, vocabulary=256)
