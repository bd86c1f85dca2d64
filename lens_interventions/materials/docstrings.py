"""Prose from the docstrings of packages that are installed because this library needs them.

These are explanations by many authors, some of them a page long. They are read from source files,
so no package is imported and nothing is copied into this library. The licences of the packages
apply.
"""

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from .document import Document
from .shingles import without_repeats

PACKAGES = (
    "huggingface_hub",
    "mpmath",
    "networkx",
    "numpy",
    "scipy",
    "sympy",
    "torch",
    "transformer_lens",
)
"""Where docstrings are read: packages with long ones that come with this library.

transformers and pandas would cost half as much time again and add little: their docstrings are long
lists of parameters.
"""

SHORTEST = 120
"""Words of the shortest document."""

# Numpydoc's sections that are lists, code or references.
_NO_PROSE = {
    "Attributes",
    "Examples",
    "Methods",
    "Other Parameters",
    "Parameters",
    "Raises",
    "References",
    "Returns",
    "See Also",
    "Warns",
    "Yields",
}
_UNDERLINE = re.compile(r"([-=~^*\"])\1{2,}\s*$")
# Marks of paragraphs that are not prose: a directive, a list, a table, a doctest, a formula.
_NOT_A_SENTENCE = re.compile(r"^(\.\. |\.\.\.|>>>|[-*+•|:=] ?|\(?\w{1,2}[.)] )|\|\w|::|\\|[{}]|=")
# Markup, and what is left of it.
_MARKUP = (
    (re.compile(r":[a-z:+]+:`[~.]*([^`<]*?)(?: ?<[^`]*>)?`"), r"\1"),  # :class:`~numpy.ndarray`
    (re.compile(r"`([^`<]+?) ?<[^`]*>`__?"), r"\1"),  # `NumPy <https://numpy.org>`_
    (re.compile(r"``?[~.]*([^`]+)``?_?"), r"\1"),
    (re.compile(r"\$([^$]+)\$"), r"\1"),
    (re.compile(r"(?<![\w*])(\*\*?)([^\s*](?:[^*]*[^\s*])?)\1(?![\w*])"), r"\2"),
    (re.compile(r"\[[#*]?([\w.-]+)\]_"), r"[\1]"),  # a reference
    (re.compile(r"\b_([A-Za-z]\w*)_\b|\b([a-z]\w+)_(?=[\s.,;:)])"), r"\1\2"),  # a link's name
)

_QUOTED = re.compile(r'"""(.*?)"""', re.S)
# Usually the beginning of a module's statement, so that the text before consists of whole
# statements.
_TOP_LEVEL = re.compile(r"\n\n+(?=@|class |def |async def )")


@functools.cache
def docstring_prose() -> tuple[Document, ...]:
    """The prose of the longer docstrings of numpy, scipy, torch, sympy, networkx and others.

    There is one document for each module, class or function whose docstring has at least 120 words
    of prose: whole paragraphs of sentences, without parameters, examples, formulas, lists and
    tables. In all these are some 560 documents with 107,000 words. Documents that repeat longer
    ones are left out. The title is the full name, such as "scipy.optimize._shgo.shgo".

    Reading takes some seconds, once per process. The text differs between versions of the packages,
    so a result that uses it should name its `docstring_versions()`.
    """
    found: dict[str, Document] = {}
    for package in docstring_versions():
        for name, docstring in _of_package(package):
            text = prose_of(docstring)
            if _is_long(text) and name not in found:
                found[name] = Document(name, text, "docstring")
    return without_repeats(list(found.values()))


def docstring_versions() -> dict[str, str]:
    """The versions of the packages whose docstrings are read on this machine, by name."""
    return {
        package: importlib.metadata.version(package)
        for package in PACKAGES
        if importlib.util.find_spec(package)
    }


def prose_of(docstring: str) -> str:
    """The paragraphs of sentences in a docstring of reStructuredText, without their markup.

    Empty if there are none.
    """
    kept = []
    for section in _prose_sections(inspect.cleandoc(docstring)):
        for paragraph in re.split(r"\n\s*\n", section):
            lines = paragraph.strip("\n").splitlines()
            if any(line.startswith((" ", "\t")) or _NOT_A_SENTENCE.search(line) for line in lines):
                continue
            text = _without_markup(" ".join(" ".join(lines).split()))
            # A paragraph that ends with a colon, or continues after a formula, has lost its other
            # half.
            if re.match(r"[\"'(]?[A-Z]", text) and re.search(r"[.!?][\"')]*$", text):
                kept.append(text)
    return "\n\n".join(kept)


def _prose_sections(text: str) -> Iterator[str]:
    """The text before the first heading, and the text below each heading that promises prose."""
    lines = text.splitlines()
    heading = ""
    body: list[str] = []
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if line.strip() and _UNDERLINE.match(following):
            if heading not in _NO_PROSE:
                yield "\n".join(body)
            heading, body = line.strip(), []
        elif not _UNDERLINE.match(line):
            body.append(line)
    if heading not in _NO_PROSE:
        yield "\n".join(body)


def _without_markup(text: str) -> str:
    for pattern, left in _MARKUP:
        text = pattern.sub(left, text)
    return text


def _is_long(text: str) -> bool:
    return len(text.split()) >= SHORTEST


def _of_package(package: str) -> Iterator[tuple[str, str]]:
    """Full names and docstrings of a package's definitions, file by file."""
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).rglob("*.py")):
            parts = (package, *file.relative_to(folder).with_suffix("").parts)
            if "tests" not in parts:
                source = file.read_text(encoding="utf-8", errors="replace")
                yield from _of_source(source, ".".join(parts).removesuffix(".__init__"))


def _of_source(source: str, name: str) -> Iterator[tuple[str, str]]:
    # Parsing is slow, so most files are not parsed at all, and of the others only parts that hold
    # prose.
    texts = [text for text in _QUOTED.findall(source) if len(text.split()) >= SHORTEST]
    if not any(_is_long(prose_of(text)) for text in texts):
        return
    for part in _TOP_LEVEL.split(source):
        if any(text in part for text in texts):
            try:
                module = _parsed(part)
            except SyntaxError:  # cut within a docstring, or written for another Python
                continue
            yield from _of_definition(module, name)


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # Other people's escape sequences cause warnings.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _of_definition(
    node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    docstring = ast.get_docstring(node, clean=False)
    if docstring:
        yield name, docstring
    for inner in node.body:
        if isinstance(inner, ast.ClassDef | ast.FunctionDef):
            yield from _of_definition(inner, f"{name}.{inner.name}")
