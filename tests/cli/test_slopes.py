"""`lens-interventions slopes` on a tiny model: what it writes, going on, what it refuses."""

import functools
import importlib
import json

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.model.fingerprint import fingerprint
from tests.support.tiny import shared_bridge

DOCUMENTS = ["the people say that the time they mean is the other time", "the dog jumps over"]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    return path


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama."""
    module = importlib.import_module("lens_interventions.cli.slopes")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))
    return functools.partial(command, "slopes")


def test_it_writes_what_slope_map_finds(run, corpus, tmp_path):
    out = tmp_path / "map.csv"
    more = ("--source", "true", "--source", "random", "--mode", "correct", "--scope", "other")
    status, printed, err = run("--file", corpus, "--out", out, "--context", 12, *more)
    assert status == 0, err
    expected = li.slope_map(
        shared_bridge("llama"),
        DOCUMENTS,
        sources=["true", "random"],
        modes=["correct"],
        scopes=["other"],
        max_length=12,
        progress=False,
    )
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table["estimate"]) == pytest.approx(list(expected.to_dataframe()["estimate"]))
    assert set(table["scale"]) == {"norm"}
    assert f"{int(expected.counts.sum())} tokens of 2 texts predicted" in printed
    assert "(mode correct, embedding W_E, scale norm)" in printed
    assert not [*tmp_path.glob("*partial*"), *tmp_path.glob(".*partial*")]


def test_layers_and_the_first_position_are_those_of_the_map(run, corpus, tmp_path):
    out = tmp_path / "map.csv"
    more = ("--source", "true", "--layer", 1, "--layer", 2, "--first-position", 4)
    status, _, err = run("--file", corpus, "--out", out, "--context", 12, *more)
    assert status == 0, err
    expected = li.slope_map(
        shared_bridge("llama"),
        DOCUMENTS,
        layers=[1, 2],
        sources=["true"],
        first_position=4,
        max_length=12,
        progress=False,
    ).to_dataframe()
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table["layer"]) == list(expected["layer"])
    assert list(table["estimate"]) == pytest.approx(list(expected["estimate"]))


def test_the_seed_and_the_window_are_those_of_the_map(run, corpus, tmp_path):
    out = tmp_path / "map.csv"
    more = ("--source", "random", "--seed", 3, "--window", 2, "--context", 12)
    status, _, err = run("--file", corpus, "--out", out, *more)
    assert status == 0, err

    def estimates(seed, window):
        found = li.slope_map(
            shared_bridge("llama"),
            DOCUMENTS,
            sources=["random"],
            seed=seed,
            window=window,
            max_length=12,
            progress=False,
        )
        return list(found.to_dataframe()["estimate"])

    table = list(pd.read_csv(out, keep_default_na=False)["estimate"])
    assert table == pytest.approx(estimates(3, 2))
    assert table != pytest.approx(estimates(0, 2))
    assert table != pytest.approx(estimates(3, None))


def test_a_mistake_in_the_scope_leaves_nothing_in_the_way(run, tmp_path):
    corpus, out = tmp_path / "corpus.txt", tmp_path / "map.csv"
    corpus.write_text("dog")
    status, _, err = run("--file", corpus, "--out", out, "--scope", "copyable")
    assert status == 1
    assert "no text with a token to predict" in err
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]
    assert run("--file", corpus, "--out", out)[0] == 0


def test_the_text_is_not_written_over(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    corpus = tmp_path / "corpus.csv"
    corpus.write_text("the people say")
    status, _, err = run("--file", corpus, "--out", corpus)
    assert status == 2
    assert "corpus.csv is the file that is read" in err
    assert corpus.read_text() == "the people say"


def test_a_figure(run, corpus, tmp_path):
    out = tmp_path / "map.html"
    status, printed, err = run("--file", corpus, "--out", out)
    assert status == 0, err
    assert "final guess " in printed
    assert "true source minus" in out.read_text()


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--source", "next"), 2, "'next' is not one of true, random"),
        (("--source", "true", "--source", "true"), 2, "'true' is given twice"),
        (("--embedding", "lens"), 2, "--embedding lens needs --lens"),
        (("--out", "map.docx"), 2, "use one of .html"),
        (("--out", "nowhere/map.html"), 1, "nowhere is not a directory to write in"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_mistakes(run, corpus, tmp_path, monkeypatch, more, status, message):
    monkeypatch.setenv("COLUMNS", "200")
    found, _, err = run("--file", corpus, "--out", tmp_path / "map.html", *more)
    assert found == status
    assert message in err


@pytest.mark.usefixtures("as_users_run")
def test_a_lens_that_nothing_reads_is_refused(run, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bridge = shared_bridge("llama")
    n_layers, d_model = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    weight, bias = torch.zeros(n_layers, d_model, d_model), torch.zeros(n_layers, d_model)
    fitted = tmp_path / "lens.safetensors"
    li.AffineLens(weight, bias, fingerprint(bridge), {}).save(fitted)
    given = ("--file", corpus, "--context", 12, "--out", tmp_path / "map.csv", "--lens", fitted)
    for more in ((), ("--source", "final_guess")):
        status, _, err = run(*given, *more)
        assert status == 2
        assert "--lens has no effect" in err
    for more in (("--mode", "add", "--mode", "correct"), ("--gate", "0.5")):
        status, _, err = run(*given, "--source", "true", *more)
        assert status == 0, err


def test_a_context_beyond_the_models_names_the_option(run, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the people say that they mean the time")
    status, _, err = run("--file", corpus, "--out", tmp_path / "map.csv", "--context", 500)
    assert status == 2, err
    assert "--context must be from 2 to the model's" in err
