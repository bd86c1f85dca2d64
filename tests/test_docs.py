"""Every Python block of the README runs, in order, and every command that it shows exists."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lens_interventions.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run(capsys):
    names = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "'final_post'" in capsys.readouterr().out
    assert names["log_probs"].shape == (2, 1, names["tokens"].shape[1] - 1)
    assert names["patched"].points == names["traj"].points


@pytest.mark.parametrize(
    "line", [line for block in blocks("sh") for line in block.splitlines() if line]
)
def test_the_commands_exist(line):
    command, *rest = shlex.split(line, comments=True)
    if command == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE)
        return
    assert command == "lens-interventions"
    subcommand = [part for part in rest[:1] if not part.startswith("-")]
    assert CliRunner().invoke(app, [*subcommand, "--help"]).exit_code == 0


def test_the_pictures_are_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).stat().st_size > 10_000
