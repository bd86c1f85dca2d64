"""CONTRIBUTING tells the truth about where the modules stand."""

import ast
import re
from importlib.util import resolve_name

from tests.support.pages import ROOT

PACKAGE = ROOT / "lens_interventions"


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
