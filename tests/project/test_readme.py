"""The README runs, its commands exist, and its table is what was measured."""

import re

import pytest

from lens_interventions.experiments import load_result
from lens_interventions.measures.verdicts import JOINT
from tests.support.pages import (
    ROOT,
    assert_command_exists,
    assert_pictures_are_there,
    blocks,
    commands,
)
from tests.support.told import in_short

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


QUESTIONS = {
    "loss on the second copy of random tokens": ("copying", 0),
    "log-prob of a rare word due again": ("copying", 1),
    "loss on copyable tokens of natural text": ("copying", 3),
    "loss right after a surprise": ("copying", 5),
    "loss on later repeats of a surprising token": ("copying", 6),
    "share of greedy samples that end in a loop": ("loops", 0),
    "log-odds that a repeated passage is said once more": ("loops", 2),
}
MODELS = ("smollm2-135m-instruct", "gemma-3-270m")


def test_the_table_of_the_readme_is_what_was_measured():
    """A row for each question: both models against all references, with the bound of the grid."""
    table = re.findall(r"^\| true token minus .*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()]
    assert rows == [[name, *map(told, MODELS, [name] * 2)] for name in QUESTIONS]


def told(model, name):
    """A verdict with its interval and, for copying, what no cell of the grid gains more than."""
    run, number = QUESTIONS[name]
    result = load_result(ROOT / "results" / model / run)
    verdict = result.verdicts[number].verdict
    assert verdict.against == JOINT
    estimate, low, high = (
        f"{value:+.3f}".replace("-", "−")
        for value in (verdict.interval.estimate, verdict.interval.low, verdict.interval.high)
    )
    outcome = in_short(verdict)
    if "bounds" not in result.tables:
        return f"{estimate} [{low}, {high}], {outcome}"
    bound = result.tables["bounds"]["bound"][number]
    return f"{estimate} [{low}, {high}], {outcome}; no cell gains more than {bound:.2f}"
