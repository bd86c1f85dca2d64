"""`lens-interventions score` on a tiny model."""

import dataclasses
import importlib
import json
import math
from contextlib import nullcontext

import pandas as pd
import pytest
import torch

import lens_interventions as li
from lens_interventions.drawing.labels import counted
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import shared_bridge

PROMPT = "the people say that"
PATCH = li.NextTokenPatch(layer=1, strength=0.5, first_position=1)


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama, in a wide terminal."""
    module = importlib.import_module("lens_interventions.cli.score")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))
    monkeypatch.setenv("COLUMNS", "200")
    return command


def rows_of(out):
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return {row[0]: row[1:] for row in cells if row}


def test_score_is_the_mean_loss(run, tmp_path):
    bridge = shared_bridge("llama")
    text = "the people say that the time they mean is the other time? " * 3 + "No."
    file = tmp_path / "text.txt"
    file.write_text(text)
    status, out, err = run(
        *("score", "--file", file, "--layer", 1, "--strength", 0.5, "--context", 12)
    )
    assert status == 0, err
    ids = bridge.to_tokens(text, prepend_bos=False)[0]
    pieces = [torch.cat([torch.tensor([0]), ids[i : i + 11]]) for i in range(0, len(ids), 11)]
    counts = sum(len(piece) - 1 for piece in pieces)
    expected = {}
    for name, logits_of in (
        ("no patch", lambda piece: bridge(piece[None])[0]),
        ("layer 1, interpolate 0.5", lambda piece: patched_logits(bridge, piece, PATCH)),
    ):
        log_probs = [
            logits_of(piece)[:-1].log_softmax(-1).gather(-1, piece[1:, None]).sum().item()
            for piece in pieces
        ]
        expected[name] = -sum(log_probs) / counts
    table = rows_of(out)
    for name, loss in expected.items():
        assert table[name][0] == f"{loss:.4f}"
        low, high = map(float, table[name][1].split(" to "))
        assert low < loss < high
        assert table[name][2] == f"{math.exp(loss):.4g}"
    difference = expected["layer 1, interpolate 0.5"] - expected["no patch"]
    assert table["difference"][0] == f"{difference:.4f}"
    assert f"{counts} tokens predicted in {len(pieces)} pieces" in out


def test_the_true_token_is_written_through_a_fitted_lens(run, tmp_path):
    bridge = shared_bridge("llama")
    fitted = li.fit_affine_lens(bridge, [PROMPT] * 4, holdout=2, progress=False)
    fitted.save(tmp_path / "lens.safetensors")
    # What was saved is in half precision.
    kept = li.AffineLens.load(tmp_path / "lens.safetensors")
    patch = dataclasses.replace(PATCH, embedding="lens", lens=kept)
    text = tmp_path / "text.txt"
    text.write_text(PROMPT)
    status, out, err = run(
        *("score", "--file", text, "--layer", 1, "--strength", 0.5, "--context", 12),
        *("--embedding", "lens", "--lens", tmp_path / "lens.safetensors"),
    )
    assert status == 0, err
    loss = -float(li.teacher_forced_log_probs(bridge, PROMPT, patch).nanmean())
    row = rows_of(out)["layer 1, interpolate 0.5, embedding lens, fitted lens"]
    assert row[0] == f"{loss:.4f}"


def test_score_resamples_documents_where_there_are_several(run, tmp_path):
    file = tmp_path / "texts.jsonl"
    texts = ["the people say that they mean the time", "plasma, they mean blood. " * 4, "No."]
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    status, out, err = run(
        *("score", "--file", file, "--layer", 1, "--strength", 0.5, "--context", 12)
    )
    assert status == 0, err
    assert "in 3 documents" in out


def test_each_piece_draws_its_own_random_tokens(run, tmp_path):
    bridge, file = shared_bridge("llama"), tmp_path / "text.txt"
    text = "the people say that the time they mean is the other time? " * 12 + "No."
    file.write_text(text)
    options = ("--layer", 1, "--strength", 0.9, "--scale", "norm", "--source", "random")
    status, out, err = run("score", "--file", file, *options, "--context", 8)
    assert status == 0, err
    ids = bridge.to_tokens(text, prepend_bos=False, truncate=False)[0].tolist()
    pieces = [[0, *ids[i : i + 7]] for i in range(0, len(ids), 7)]
    patch = dataclasses.replace(PATCH, strength=0.9, scale="norm", source="random")
    found = li.patch_loss(bridge, pieces, patch, progress=False)
    row = rows_of(out)["layer 1, interpolate 0.9, source random, scale norm"]
    assert row[0] == f"{found.losses.sum() / found.counts.sum():.4f}"
    common = -li.teacher_forced_log_probs(bridge, pieces, patch).double().nanmean()
    assert row[0] != f"{common:.4f}"


def test_a_short_context_is_a_piece_unless_the_user_says_otherwise(run, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the people say that they mean the time " * 9)
    usual = ("score", "--file", file, "--layer", 1, "--strength", 0.5)
    context = int(shared_bridge("llama").cfg.n_ctx)
    assert context < 256
    status, out, err = run(*usual)
    assert status == 0, err
    assert out == run(*usual, "--context", context)[1]
    assert "must be from 2 to the model's" in run(*usual, "--context", context + 1)[2]


def test_a_file_that_is_not_there_is_named_in_a_line(run):
    status, _, err = run("score", "--file", "no.txt", "--layer", 1, "--strength", 0.1)
    assert status == 1
    assert "no.txt" in err
    assert "Traceback" not in err


def test_a_text_of_one_token_has_nothing_to_score(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_bridge("llama").cfg, "default_prepend_bos", False)
    file = tmp_path / "short.txt"
    file.write_text("x")
    status, out, err = run(
        *("score", "--file", file, "--layer", 1, "--strength", 0.5, "--context", 12)
    )
    assert status == 1, err
    assert out == ""
    assert "short.txt holds no text of two tokens" in err


def test_several_texts_of_one_token_have_nothing_to_score(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_bridge("llama").cfg, "default_prepend_bos", False)
    file = tmp_path / "short.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in "xy"))
    status, _, err = run("score", "--file", file, "--layer", 1, "--strength", 0.5)
    assert status == 1, err
    assert "short.jsonl holds no text of two tokens" in err


def test_scopes_have_a_table_each_and_a_file_holds_them(run, tmp_path):
    texts = ["the people say that the people say the time", "the time is the time they mean"]
    file, out = tmp_path / "texts.jsonl", tmp_path / "losses.csv"
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    scopes = ["copyable", "other"]
    status, said, err = run(
        *("score", "--file", file, "--layer", 1, "--strength", 0.5, "--out", out, "--seed", 3),
        *(f"--scope={scope}" for scope in scopes),
    )
    assert status == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {file.name, out.name}
    found = li.patch_loss(shared_bridge("llama"), texts, PATCH, scopes=scopes, progress=False)
    expected = found.to_dataframe(seed=3).assign(label="layer 1, interpolate 0.5")
    pd.testing.assert_frame_equal(pd.read_csv(out), expected, rtol=1e-12)
    for scope, counts in zip(scopes, found.counts.T, strict=True):
        assert f"{counted(int(counts.sum()), 'token')} ({scope}) predicted in" in said


def test_a_scope_without_predictions_is_said(run, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the people say")
    status, said, err = run(
        *("score", "--file", file, "--layer", 1, "--strength", 0.5, "--context", 12),
        *("--scope", "all", "--scope", "repeated_surprise"),
    )
    assert status == 0, err
    assert "no prediction is repeated surprise" in said
    assert "nan" not in said


def test_stopped_while_it_writes_to_a_file_it_goes_on(run, tmp_path, monkeypatch):
    file, out = tmp_path / "texts.jsonl", tmp_path / "losses.json"
    file.write_text("\n".join(json.dumps({"text": PROMPT}) for _ in range(2)))
    arguments = ("score", "--file", file, "--layer", 1, "--strength", 0.5, "--out", out)
    writing = importlib.import_module("lens_interventions.cli.score")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(writing, "write_table_or_figure", stop)
        status, _, err = run(*arguments)
    assert (status, out.exists()) == (130, False)
    assert "losses.json.partial; the same command continues" in err

    def measure(*_):
        raise AssertionError("what was measured is measured again")

    with monkeypatch.context() as watching:
        watching.setattr("lens_interventions.intervention.losses.patch_loss.loss_sums", measure)
        assert run(*arguments)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {file.name, out.name}
    assert len(pd.read_json(out)) == 1


@pytest.mark.parametrize("adapt", [None, "attention"])
def test_a_trained_write_is_applied_with_its_reader(run, tmp_path, adapt):
    bridge = shared_bridge("llama")
    text = "the people say that the people say the time. " * 12
    options = li.TrainingOptions(window=12, batch_size=2, held_out_windows=2, first_position=2)
    write = li.train_patch(
        *(bridge, [text]),
        layer=1,
        rank=4,
        steps=10,
        adapt=adapt,
        options=options,
        progress=False,
    ).write
    file, saved = tmp_path / "text.txt", tmp_path / "write.safetensors"
    file.write_text(text)
    write.save(saved)
    arguments = ("score", "--file", file, "--write", saved, "--context", 12)
    with nullcontext() if write.reader is None else write.reader.on(bridge):
        half = write.patch(strength=0.5)
        found = li.patch_loss(bridge, [text], [write.patch(), half], max_length=12, progress=False)
    clean, full, less = found.clean[0, 0], *found.losses[0, 0]
    assert min(abs(full - clean), abs(less - full), abs(less - clean)) > 1
    without = "no patch" if adapt is None else "the reader alone"
    for more, name, nats in (
        ((), "layer 1, learned write", full),
        (("--strength", 0.5), "layer 1, learned write 0.5", less),
    ):
        status, said, err = run(*arguments, *more)
        assert status == 0, err
        table = rows_of(said)
        assert table[without][0] == f"{clean / found.counts[0, 0]:.4f}"
        assert table[name][0] == f"{nats / found.counts[0, 0]:.4f}"
    status, _, err = run(*arguments, "--first-position", 1)
    assert status == 2
    assert "leave out --first-position" in " ".join(err.split())
