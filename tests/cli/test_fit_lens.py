"""`lens-interventions fit-lens` on a tiny model: what it fits to, what it writes and refuses."""

import functools
import importlib
import json

import pandas as pd
import pytest
import torch

import lens_interventions as li
from tests.support.tiny import shared_bridge, tiny_bridge

DOCUMENTS = [
    f"the people say that {word} is the time they mean, and then the dog jumps over the {word}"
    for word in ("fox", "blood", "state", "matter", "plasma", "time", "brown", "quick", "lazy")
]


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama, in a wide terminal."""
    module = importlib.import_module("lens_interventions.cli.fit_lens")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(command, "fit-lens")


@pytest.fixture
def files(tmp_path):
    """Text to fit to and text to judge by."""
    corpus, tests = tmp_path / "corpus.jsonl", tmp_path / "tests.txt"
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    tests.write_text("\n\n".join(DOCUMENTS[:3]))
    return corpus, tests


def test_the_text_of_the_fit_is_no_test_of_it(run, files, tmp_path):
    corpus, _ = files
    again = corpus.parent / "." / corpus.name
    status, _, err = run(
        "--file", corpus, "--test-file", again, "--out", tmp_path / "l.safetensors"
    )
    assert status == 2
    assert "--test-file is the file that the lens is fitted to" in err


@pytest.mark.parametrize("name", ["quality.csv", "quality.CSV"])
def test_it_fits_to_a_file_and_reports_on_another(run, files, tmp_path, name):
    corpus, tests = files
    out, table = tmp_path / "lens.safetensors", tmp_path / name
    status, printed, err = run(
        "--file", corpus, "--test-file", tests, "--out", out, "--quality", table, "--window", 8
    )
    assert status == 0, err
    bridge, lens = shared_bridge("llama"), li.AffineLens.load(out)
    expected = li.fit_affine_lens(bridge, DOCUMENTS, window=8, corpus=corpus.name, progress=False)
    assert lens.settings == expected.settings
    torch.testing.assert_close(lens.weight, expected.weight.half().float(), rtol=0, atol=0)
    quality = li.lens_quality(bridge, expected, DOCUMENTS[:3], progress=False)
    pd.testing.assert_frame_equal(pd.read_csv(table), quality.to_dataframe(), rtol=0, atol=1e-9)
    assert "KL(final ‖ point), nats" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus.jsonl",
        "lens.safetensors",
        name,
        "tests.txt",
    ]


def test_stopped_while_the_lens_is_judged_it_says_that_it_is_written(
    run, files, tmp_path, monkeypatch
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("lens_interventions.fitting.lens_quality.lens_quality", stopped)
    corpus, tests = files
    out = tmp_path / "lens.safetensors"
    status, _, err = run("--file", corpus, "--test-file", tests, "--out", out, "--window", 8)
    assert status == 130
    assert err.splitlines()[-1] == f"Stopped: {out} is written"
    assert li.AffineLens.load(out).settings["tokens"] > 0


def test_without_a_file_the_model_writes_the_corpus(run, files, tmp_path):
    out = tmp_path / "lens.safetensors"
    arguments = ("--samples", 12, "--test-file", files[1], "--out", out)
    status, _, err = run(*arguments)
    assert status == 0, err
    bridge, lens = shared_bridge("llama"), li.AffineLens.load(out)
    texts = list(li.sample_texts(bridge, 12, progress=False))
    expected = li.fit_affine_lens(bridge, texts, progress=False)
    assert lens.settings["corpus"] == "the model's own samples"
    assert lens.settings["corpus_hash"] == expected.settings["corpus_hash"]
    assert "refined" not in lens.settings
    status, _, err = run(*arguments, "--refine", 2)
    assert status == 0, err
    assert li.AffineLens.load(out).settings["refined"]["steps"] == 2


def test_a_fit_and_its_refinement_read_as_many_tokens_at_a_time(run, files, tmp_path):
    out, corpus = tmp_path / "lens.safetensors", tmp_path / "long.jsonl"
    texts = [f"{text} {again}" for again in DOCUMENTS for text in DOCUMENTS]
    corpus.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    given = ("--file", corpus, "--test-file", files[1], "--out", out, "--window", 16)
    status, _, err = run(*given, "--refine", 2)
    assert status == 0, err
    options = {"window": 16, "progress": False}
    bridge = shared_bridge("llama")
    lens = li.fit_affine_lens(bridge, texts, **options)
    expected = li.refine_affine_lens(bridge, lens, texts, steps=2, **options)
    assert li.AffineLens.load(out).settings["refined"] == expected.settings["refined"]


def test_a_model_of_a_short_context_reads_what_fits(run, files, tmp_path, monkeypatch):
    bridge = tiny_bridge("llama", max_position_embeddings=16)
    module = importlib.import_module("lens_interventions.cli.fit_lens")
    monkeypatch.setattr(module, "load", lambda *_: bridge)
    out = tmp_path / "lens.safetensors"
    status, _, err = run("--samples", 10, "--test-file", files[1], "--out", out)
    assert status == 0, err
    assert li.AffineLens.load(out).settings["tokens"] == 9 * 15  # one is held out
    assert any(len(bridge.tokenizer(text)["input_ids"]) > 16 for text in DOCUMENTS[:3])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "lens.pt"], "cannot write 'lens.pt': use one of .safetensors"),
        (["--out", "lens.safetensors", "--quality", "q.doc"], "cannot write 'q.doc'"),
        (
            ["--out", "lens.safetensors", "--file", "a.txt", "--samples", 20],
            "give only one",
        ),
        (["--out", "lens.safetensors", "--file", "a.txt"], "a.txt"),
    ],
)
def test_what_it_refuses_before_it_loads_a_model(run, tmp_path, monkeypatch, arguments, said):
    module = importlib.import_module("lens_interventions.cli.fit_lens")
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("it loads"))
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*arguments)
    assert status != 0
    assert said in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_refining_needs_a_precision_that_can_be_differentiated(run, files, tmp_path):
    corpus, _ = files
    out = tmp_path / "l.safetensors"
    status, _, err = run("--file", corpus, "--out", out, "--refine", 5, "--dtype", "bfloat16")
    assert status == 2, err
    assert "--refine needs --dtype float32 or float64" in err
