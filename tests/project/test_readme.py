"""The README: its Python runs, its commands exist, its tables are what was measured."""

import json
import re

import pytest

from tests.support.pages import (
    ROOT,
    assert_command_exists,
    assert_pictures_are_there,
    blocks,
    commands,
)

README = (ROOT / "README.md").read_text()


def test_the_python_blocks_run(capsys):
    names = {}
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "'final_post'" in capsys.readouterr().out
    assert names["log_probs"].shape == (2, 1, names["tokens"].shape[1] - 1)
    assert names["patched"].points == names["traj"].points


@pytest.mark.parametrize("line", commands([README]))
def test_the_commands_exist(line):
    assert_command_exists(line)


def test_the_pictures_are_there():
    assert_pictures_are_there(ROOT / "README.md")


INTERVAL = re.compile(r"([-+.\de]+) \[([-+.\de]+), ([-+.\de]+)\]")


@pytest.mark.parametrize(
    ("page", "model", "n_tables"),
    [("README.md", "smollm2-135m-instruct", 2), ("docs/second-model.md", "gemma-3-270m", 1)],
)
def test_the_verdict_tables_are_the_committed_results(page, model, n_tables):
    """Each row is one finding: against the best control, then what its method says of no patch."""
    measured = []
    for path in ROOT.glob(f"results/{model}/*/result.json"):
        for finding in json.loads(path.read_text())["verdicts"]:
            found = [finding["verdict"]["interval"][name] for name in ("estimate", "low", "high")]
            measured.append([found, *INTERVAL.findall(finding["method"])])
    text = (ROOT / page).read_text()
    tables = re.findall(r"^\| question \| true .*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == n_tables
    for row in "".join(tables).replace("−", "-").splitlines():
        first, *others = INTERVAL.findall(row)
        digits = len(first[0].partition(".")[2])
        rounded = [
            [tuple(f"{float(value):+.{digits}f}" for value in values) for values in finding]
            for finding in measured
        ]
        assert any(first == own and {*others} <= {*rest} for own, *rest in rounded), row


def test_the_correlations_are_the_committed_results():
    """Of the second model's page, a row for each verdict; of the README, the first two."""

    def rounded(model):
        path = ROOT / f"results/{model}/preservation/result.json"
        found = [v["verdict"]["interval"] for v in json.loads(path.read_text())["verdicts"]]
        return [tuple(f"{i[name]:+.2f}" for name in ("estimate", "low", "high")) for i in found]

    default, second = rounded("smollm2-135m-instruct"), rounded("gemma-3-270m")
    page = (ROOT / "docs/second-model.md").read_text().replace("−", "-")
    table = re.findall(r"^\| question \| SmolLM2.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [INTERVAL.findall(row) for row in table[0].splitlines()]
    assert rows == [list(pair) for pair in zip(default, second, strict=True)]
    sentences = README.partition("Unlike in the post")[2].replace("−", "-")
    assert INTERVAL.findall(sentences)[:2] == default[:2]
