"""The house: which packages there are, and that imports point one way.

Every import counts, also one inside a function or for type checkers alone.
"""

import ast
import functools
import re
import shutil
from importlib.util import resolve_name
from pathlib import Path

import networkx
import pytest

from tests.support.pages import ROOT

NAME = "lens_interventions"
SHARED = ("engine", "design")  # packages of experiments/ that belong to no experiment
LIST = f"{NAME}.experiments.plans"  # it alone, beside the package itself, imports several


def floors():
    """The packages from top to bottom, as CONTRIBUTING lists them; one list a floor."""
    table = (ROOT / "CONTRIBUTING.md").read_text().split("| may import what is below |")[1]
    rows = table.split("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`(\w+)/?`", row.split("|")[1]) for row in rows]


@functools.cache  # a copy with a planted import has the other modules as they are
def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """Every import in the code of a module."""
    nodes = ast.walk(ast.parse(source))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def import_graph(package: Path) -> networkx.DiGraph:
    """Arrows from every module to every module that it imports anywhere in its code."""
    modules = {
        ".".join((NAME, *path.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in package.rglob("*.py")
    }
    graph = networkx.DiGraph()
    graph.add_nodes_from(modules)
    for module, path in modules.items():
        parent = module if path.stem == "__init__" else module.rpartition(".")[0]
        for node in import_statements(path.read_text()):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                source = resolve_name("." * node.level + (node.module or ""), parent)
                names = [
                    name if (name := f"{source}.{alias.name}") in modules else source
                    for alias in node.names
                ]
            graph.add_edges_from((module, name) for name in names if name in modules)
    return graph


def room(module: str) -> str | None:
    """The package or flat module that a module belongs to, None for the root."""
    _, _, inside = module.partition(".")
    return inside.split(".")[0] or None


def experiment(module: str) -> str | None:
    """Which experiment a module belongs to; None for what all of them share."""
    parts = module.split(".")[1:]
    named = len(parts) > 1 and parts[0] == "experiments" and parts[1] not in SHARED
    return parts[1] if named else None


def wrong_arrows(graph: networkx.DiGraph) -> list[str]:
    """What breaks the order of the packages, or opens a private module or another experiment."""
    floor = {name: height for height, names in enumerate(floors()) for name in names}
    found = []
    for source, target in graph.edges:
        above, below = room(source), room(target)
        if above in floor and below in floor and above != below and floor[above] >= floor[below]:
            found.append(f"{source} imports {target}, which is not below it")
        if above == below == "experiments" and experiment(target):
            belongs = source not in (LIST, f"{NAME}.experiments")
            if belongs and experiment(source) != experiment(target):
                found.append(f"{source} imports {target}, of another experiment")
        package, _, name = target.rpartition(".")
        if name.startswith("_") and not f"{source}.".startswith(f"{package}."):
            found.append(f"{source} imports {target}, which is private to {package}")
    circles = [sorted(part) for part in networkx.strongly_connected_components(graph)]
    return found + [f"a circle: {', '.join(circle)}" for circle in circles if len(circle) > 1]


def copy_with(directory: Path, module: str, planted: str) -> Path:
    """A copy of the package with code at the end of a module."""
    copy = directory / NAME
    shutil.copytree(ROOT / NAME, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / module).write_text(f"{(copy / module).read_text()}\n{planted}\n")
    return copy


def test_every_package_has_a_place():
    package = ROOT / NAME
    there = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    flat = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(name for names in floors() for name in names) == sorted(there | flat)
    assert len(list(package.glob("[!.]*.py*"))) <= 7


def test_imports_point_down():
    assert wrong_arrows(import_graph(ROOT / NAME)) == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("model/points.py", "from ..lens.logit_lens import logit_lens"),
        ("lens/statistics.py", "def f():\n    from .. import experiments"),
        ("intervention/modes.py", "def f():\n    from ..plots import save"),
        ("fitting/ridge.py", "from ..experiments.engine.work_units import Unit"),
        ("drawing/labels.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
         "    from ..lens.trajectory import Trajectory"),
        ("experiments/copying/settings.py", "from ..loops import settings"),
        ("experiments/design/conditions.py", "from ..loops.settings import LoopsSettings"),
        ("experiments/engine/presets.py", "def f():\n    from ..plans import PLANS"),
        ("model/points.py", "from .tokens import TokenBatch\nfrom . import residuals"),
        ("materials/readers.py", "import lens_interventions.cli"),
        ("fitting/ridge.py", "from ..model._gguf import gguf_model"),
    ],
)  # fmt: skip
def test_a_planted_arrow_is_found(tmp_path, module, planted):
    assert wrong_arrows(import_graph(copy_with(tmp_path, module, planted)))


def unsaid_imports(package: Path) -> list[str]:
    """Packages that a package imports although its docstring names others.

    It names them in backticks after "imports" or "may import". "What is below them" adds the lower
    floors. Docstrings that say it in other words are left out.
    """
    floor = {name: height for height, names in enumerate(floors()) for name in names}
    graph = import_graph(package)
    found = []
    for path in package.rglob("__init__.py"):
        inside = ".".join((NAME, *path.parent.relative_to(package).parts))
        opening = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        said = " ".join(re.findall(r"\b(?:may import|imports) ([^.:;]*)", opening))
        named = set(re.findall(r"`(\w+)/?`", said)) & set(floor) - {room(inside)}
        if not named and "no other package" not in said and "nothing else" not in said:
            continue
        lowest = max((floor[name] for name in named), default=len(floors()))
        edges = [edge for edge in graph.edges if f"{edge[0]}.".startswith(f"{inside}.")]
        found += [
            f"{source} imports {target}, which {inside} does not name"
            for source, target in edges
            if (above := room(target)) in floor
            and above not in named | {room(inside)}
            and not above.startswith("_")
            and not ("below" in said and floor[above] > lowest)
        ]
    return found


def test_packages_import_what_they_say():
    assert unsaid_imports(ROOT / NAME) == []


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("intervention/training/loss.py", "from ...measures.verdicts import verdict"),
        ("intervention/patch.py", "def f():\n    from ..evaluation import decoding"),
        ("experiments/engine/run.py", "from ...fitting.ridge import solve"),
        ("drawing/labels.py", "from ..measures import intervals"),
    ],
)
def test_an_import_that_is_not_said_is_found(tmp_path, module, planted):
    copy = copy_with(tmp_path, module, planted)
    assert len(unsaid_imports(copy)) >= 1


def test_every_package_says_what_lives_there():
    for path in (ROOT / NAME).rglob("__init__.py"):
        if path.parent != ROOT / NAME:
            opening = ast.get_docstring(ast.parse(path.read_text())) or ""
            assert len(re.findall(r"[.:](?:\s|$)", opening)) >= 2, path
