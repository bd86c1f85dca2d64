"""Every Python block of the README runs, in order, and every command that it shows exists.

And CONTRIBUTING tells the truth about where the modules stand.
"""

import ast
import re
import shlex
from importlib.util import resolve_name
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lens_interventions.cli import app

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lens_interventions"
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


def parts():
    """The modules of the package as CONTRIBUTING lists them, a list for each part."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| part |")[1].split("\n\n")[0]
    return [re.findall(r"`(\w+)/?`", row.split("|")[2]) for row in table.splitlines()[2:]]


def test_the_layout_names_every_module_once():
    there = {path.stem for path in PACKAGE.glob("[!.]*") if path.suffix in ("", ".py")}
    there -= {"__init__", "__main__", "__pycache__"}
    assert sorted(name for part in parts() for name in part) == sorted(there)


def imported(path):
    """What a module imports of the package when it is imported itself, by dotted names."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}".split(".") for alias in node.names)


def test_imports_point_down_the_layout():
    place = {name: number for number, part in enumerate(parts()) for name in part}
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for root, name, *_ in imported(path) if own in place else ():
            if root == PACKAGE.name and name in place:
                assert place[own] <= place[name], (own, name)
