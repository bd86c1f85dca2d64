"""`lens-interventions lens`: tables, files, and one line for every mistake."""

import csv
import importlib
import io
import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lens_interventions import cli
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.trajectory import Trajectory
from tests.support.tiny import shared_bridge, tiny_bridge, tiny_tokenizer

TEXT = "The capital of France is"


@pytest.fixture
def default(monkeypatch, default_bridge):
    """The `lens` command on the embedded model, which is loaded once for all tests."""
    module = importlib.import_module("lens_interventions.cli.lens")
    monkeypatch.setattr(module, "load", lambda *_: default_bridge)


@pytest.mark.usefixtures("default")
def test_a_table_in_the_terminal(command):
    status, out, err = command("lens", TEXT, "--layers", "0,15,final")
    assert status == 0, err
    assert "final" in out
    assert "Paris" in out


@pytest.mark.usefixtures("default")
def test_where_the_final_guess_stays(command, default_bridge):
    status, out, err = command("lens", TEXT, "--commitment", "half")
    assert status == 0, err
    found = logit_lens(default_bridge, TEXT).commitment(probability=0.5)
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert [line.split("│")[4].strip() for line in lines] == [
        name or "never" for name in found.names()
    ]


def test_a_criterion_that_does_not_exist(command):
    assert "must be one of top1, top3, half" in command("lens", TEXT, "--commitment", "x")[2]
    assert "leave out --out" in command("lens", TEXT, "--commitment", "half", "--out", "a.csv")[2]


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("suffix", ["csv", "json", "html", "safetensors"])
def test_results_in_files(command, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    status, _, err = command("lens", TEXT, "--layers", "0,final", "--out", path)
    assert status == 0, err
    if suffix == "safetensors":
        assert Trajectory.load(path).points == ("0_pre", "final_post")
    elif suffix == "json":
        json.loads(path.read_text())
    else:
        assert "Paris" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lens", ""], "empty"),
        (["lens", TEXT, "--stat", "loss"], "loss"),
        (["lens", TEXT, "--model", "no/such-model"], "no/such-model"),
        (["lens", TEXT, "--out", "picture.xyz"], "xyz"),
        (["lens", "--file", "no-such-file.txt"], "no-such-file.txt"),
    ],
)
def test_mistakes_get_one_line(command, arguments, message):
    status, out, err = command(*arguments)
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_an_empty_file_is_named(command, tmp_path):
    (tmp_path / "a.txt").write_text("\n")
    status, _, err = command("lens", "--file", tmp_path / "a.txt")
    assert status == 1
    assert "a.txt holds no text" in err


def test_the_command_loads_the_default_model():
    done = subprocess.run(
        [sys.executable, "-m", "lens_interventions", "lens", TEXT, "--layers", "final"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Paris" in done.stdout
    # No library's chatter; a slow machine also says how far it is.
    first, *others = done.stderr.splitlines()
    assert first == "Loading the embedded model ..."
    assert all(line.startswith("lens:") for line in others)


@pytest.fixture
def tiny(monkeypatch):
    """The `lens` command on a tiny model, whichever it names."""
    module = importlib.import_module("lens_interventions.cli.lens")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))


@pytest.mark.usefixtures("tiny")
def test_a_file_or_standard_input_gives_what_the_text_gives(tmp_path):
    file, windows = tmp_path / "text.txt", tmp_path / "windows.txt"
    text = "the people\nsay plasma"
    file.write_text(f"{text}\n")  # the newline is the editor's
    # As is the mark of its encoding, and how it ends a line.
    windows.write_bytes(b"\xef\xbb\xbfthe people\r\nsay plasma\r\n")
    results = [
        CliRunner().invoke(cli.app, ["lens", *arguments], input=given)
        for arguments, given in (
            ([text], None),
            (["--file", str(file)], None),
            (["--file", str(windows)], None),
            (["--file", "-"], f"{text}\n"),
            (["--file", "-"], windows.read_bytes()),
        )
    ]
    assert [result.exit_code for result in results] == [0] * 5
    assert len({result.stdout for result in results}) == 1


@pytest.mark.usefixtures("tiny")
def test_a_file_in_another_encoding_is_refused(command, tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes("naïve".encode("latin-1"))
    status, _, err = command("lens", "--file", file)
    assert status == 1
    assert "text.txt is not UTF-8 text" in err


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("arguments", "column"),
    [
        (["--stat", "js_input"], "js_input"),
        (["--stat", "kl_compare_reverse", "--compare-with", "1"], "kl_compare_reverse"),
        (["--stat", "kl_compare", "--compare-with", "-1"], "kl_compare"),
        (["--stat", "watched_rank", "--watch", " say", "--watch", " they"], "watched_rank[ they]"),
    ],
)
def test_what_a_statistic_needs_is_computed(command, tmp_path, arguments, column):
    path = tmp_path / "out.csv"
    status, _, err = command("lens", "the people", *arguments, "--out", path)
    assert status == 0, err
    with path.open(newline="") as file:
        assert column in next(csv.reader(file))


@pytest.mark.usefixtures("tiny")
def test_chosen_positions_and_layers_are_shown(command):
    status, out, _ = command("lens", "the people say", "--positions", "-2:", "--layers", "0,final")
    assert status == 0
    rows = [line.split()[0] for line in out.splitlines()]
    assert rows[rows.index("next") : rows.index("token") + 1] == ["next", "final", "input", "token"]
    tokens = next(line for line in out.splitlines() if line.startswith("token"))
    assert tokens.split() == ["token", "·people", "·say"]


@pytest.mark.usefixtures("tiny")
def test_every_watched_token_has_a_table(command):
    watched = ("--watch", " say", "--watch", " they")
    for stat, more in (("top1", 1), ("watched_log_prob", 0)):
        status, out, _ = command("lens", "the people say", "--stat", stat, *watched)
        assert status == 0
        titles = [line for line in out.splitlines() if "·say" in line or "·they" in line]
        assert sum("·they" in title for title in titles) == 1
        assert out.count("the model's guess was right") == 2 + more


@pytest.mark.usefixtures("tiny")
def test_a_standard_input_that_is_closed_is_named(command, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    status, _, err = command("lens", "--file", "-")
    assert (status, err.count("\n")) == (2, 1)
    assert "standard input is closed" in err


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to read: give a text, or --file"),
        (["a", "--file", "a.txt"], "give only one of them"),
        (["--file", "texts.jsonl"], "texts.jsonl holds documents in JSON"),
        (["--file", "texts.ndjson"], "texts.ndjson holds documents in JSON"),
        (["--file", "texts.jsonlines"], "texts.jsonlines holds documents in JSON"),
        (["a", "--stat", "watched_rank"], "watched_rank needs --watch"),
        (["a", "--watch", " lazy"], "is not one token of this model"),
        (["a", "--layers", "1:x"], "expected a range start:stop:step"),
        (["a", "--layers", "0,,2"], "nothing between two commas"),
        (["a", "--layers", ""], "nothing between two commas"),
        (["a", "--positions", ""], "expected a range like -20: or a list"),
        (["a", "--layers", "0:3:0"], "a step cannot be 0"),
        (["a", "--layers", "99"], "residual point 99 does not exist"),
        (["a", "--layers", "middle"], "unknown residual point 'middle'"),
        (["a", "--positions", "first"], "expected a range like -20: or a list"),
        (["a", "--positions", "7"], "do not exist in prompt 0"),
        (["a" * 500], "do not fit the model's context"),
        (["a", "--out", "no/such/directory/out.csv"], "no/such/directory is not a directory"),
    ],
)
def test_mistakes_name_what_was_expected(command, arguments, message):
    status, out, err = command("lens", *arguments)
    assert status in (1, 2)
    assert out == ""
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def halves(monkeypatch):
    """The `lens` command on a model whose tokenizer reads " people" as half of a pair."""
    bridge, tokenizer = tiny_bridge("llama"), tiny_tokenizer()

    class Halves(type(tokenizer)):
        def decode(self, *args, **kwargs):
            return super().decode(*args, **kwargs).replace(" people", "\ud800")

    tokenizer.__class__ = Halves
    bridge.tokenizer = tokenizer
    module = importlib.import_module("lens_interventions.cli.lens")
    monkeypatch.setattr(module, "load", lambda *_: bridge)


@pytest.mark.usefixtures("tiny")
def test_half_of_a_surrogate_pair_in_a_prompt_is_one_line(command):
    status, out, err = command("lens", "the " + os.fsdecode(b"\xff"))
    assert (status, out) == (1, "")
    assert err.startswith(r"Error: character 4 of the text is half of a surrogate pair ('\udcff')")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("halves")
@pytest.mark.parametrize("suffix", ["csv", "json", "html", "safetensors"])
def test_half_of_a_surrogate_pair_in_a_table_is_an_escape(command, tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    status, _, err = command("lens", "the people", "--out", path)
    assert status == 0, err
    if suffix == "safetensors":
        written = Trajectory.load(path).to_dataframe().to_csv()
    else:
        written = path.read_text(encoding="utf-8")
    assert r"\ud800" in written


@pytest.mark.usefixtures("halves")
def test_half_of_a_surrogate_pair_in_the_terminal_is_an_escape(command):
    status, out, err = command("lens", "the people")
    assert status == 0, err
    assert r"\ud800" in out


@pytest.mark.usefixtures("tiny")
def test_a_comparison_that_the_printed_table_would_not_show_is_refused(command):
    status, out, err = command("lens", TEXT, "--stat", "entropy", "--compare-with", "1")
    assert status == 2
    assert out == ""
    assert "--compare-with changes nothing of entropy" in err


@pytest.mark.usefixtures("tiny")
def test_a_terminal_without_the_signs_of_a_table_gets_escapes(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr(sys, "argv", ["lens-interventions", "lens", "when\npeople"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    sys.stdout.flush()
    assert b"\\u23ce" in written.getvalue()
    assert b"underlined" not in written.getvalue()  # nothing is
