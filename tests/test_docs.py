"""The README: its Python runs, its commands exist, its tables are what was measured."""

import json
import re

import pytest

from tests.pages import ROOT, assert_command_exists, assert_pictures_are_there, blocks, commands

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


def test_the_verdict_tables_are_the_committed_results():
    """Each row is one finding: against the best control, then what its method says of no patch."""
    measured = []
    for path in ROOT.glob("results/smollm2-135m-instruct/*/result.json"):
        for finding in json.loads(path.read_text())["verdicts"]:
            found = [finding["verdict"]["interval"][name] for name in ("estimate", "low", "high")]
            measured.append([found, *INTERVAL.findall(finding["method"])])
    tables = re.findall(r"^\| question .*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert len(tables) == 2
    for row in "".join(tables).replace("−", "-").splitlines():
        first, *others = INTERVAL.findall(row)
        digits = len(first[0].partition(".")[2])
        rounded = [
            [tuple(f"{float(value):+.{digits}f}" for value in values) for values in finding]
            for finding in measured
        ]
        assert any(first == own and {*others} <= {*rest} for own, *rest in rounded), row
