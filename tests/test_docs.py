"""The README: its Python runs, its commands exist, its pictures are there."""

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
