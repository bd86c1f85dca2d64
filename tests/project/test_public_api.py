"""What the library promises by name: everything public is explained, and in the reference."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import lens_interventions as li
from tests.support.pages import ROOT

REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))
OBVIOUS = {"bridge", "progress"}  # the same wherever they occur
# A docstring may send the reader to another for the arguments that they share.
ELSEWHERE = re.compile(r"[Aa]rguments\b.*\bas (of|in) `|whose arguments these are|one cell of `")


def stubbed():
    """The names of `__init__.pyi` that are imported there."""
    stub = ast.parse((ROOT / "lens_interventions" / "__init__.pyi").read_text())
    return [
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]


def of_module(module):
    """The public names of a public module: what it re-exports, and what it defines."""
    source = ast.parse(Path(module.__file__).read_text())
    exported = [
        alias.asname
        for node in source.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]
    defined = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and not name.startswith("_")
        and callable(value)
    ]
    return exported + defined


def arguments(function):
    """The names of a function's arguments."""
    return set(inspect.signature(function).parameters)


def public():
    """Every public object by its dotted name."""
    found = {}
    for name in stubbed():
        value = getattr(li, name)
        found[name] = value
        if isinstance(value, ModuleType):
            found |= {f"{name}.{inner}": getattr(value, inner) for inner in of_module(value)}
    return found


PUBLIC = public()
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}


def documented():
    """Names that the reference renders, as in `::: lens_interventions.plots.save`."""
    for page in REFERENCE:
        text = page.read_text()
        for path, options in re.findall(
            r"^::: lens_interventions\.(\S+)\n((?:    .*\n)*)", text, re.MULTILINE
        ):
            # `behaviour`, `crossed`, `intervals` and `verdicts` are public without their package.
            path = path.removeprefix("measures.")
            yield path
            value = PUBLIC.get(path)
            if isinstance(value, ModuleType) and "members: false" not in options:
                yield from (f"{path}.{inner}" for inner in of_module(value))


def test_there_is_something_to_check():
    assert {"logit_lens", "generate", "plots.save", "experiments.run", "verdicts.Verdict"} <= set(
        PUBLIC
    )
    assert len(FUNCTIONS) > 40


def test_every_public_name_is_in_the_reference():
    rendered = {path.split(".")[0] + "." + path.split(".")[-1] for path in documented()}
    rendered |= {path.removesuffix(".page.report") for path in documented()}
    missing = set(PUBLIC) - rendered
    assert not missing


def test_the_reference_names_nothing_twice():
    names = list(documented())
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_explain_their_arguments(name):
    doc = inspect.getdoc(FUNCTIONS[name])
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    assert doc.splitlines()[0].endswith(".")
    if not parameters or ELSEWHERE.search(doc):
        return
    assert len(doc.splitlines()) > 1
    missing = [p for p in parameters if p not in OBVIOUS and not re.search(rf"\b{p}\b", doc)]
    assert not missing


@pytest.mark.parametrize(
    "name", [name for name, f in FUNCTIONS.items() if "bridge" in arguments(f)]
)
def test_what_takes_a_model_tells_what_it_refuses(name):
    assert re.search(r"\bRaises\b|[Ee]rrors as of", inspect.getdoc(FUNCTIONS[name]))


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if inspect.isclass(value)])
def test_classes_explain_their_fields(name):
    value = PUBLIC[name]
    doc = inspect.getdoc(value)
    assert len(doc.split()) > 3
    # Fields that a class inherits are explained where they are defined.
    bases = [base for base in value.__mro__[1:] if dataclasses.is_dataclass(base)]
    doc = "\n".join([doc, *(inspect.getdoc(base) or "" for base in bases)])
    if "Attributes:" in doc:
        missing = [
            field.name
            for field in dataclasses.fields(value)
            if not field.name.startswith("_") and not re.search(rf"\b{field.name}\b", doc)
        ]
        assert not missing
    methods = [
        n
        for n, member in vars(value).items()
        if not n.startswith("_") and (callable(member) or isinstance(member, property))
        if not inspect.getdoc(member)
    ]
    assert not methods
