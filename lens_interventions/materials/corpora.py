"""Natural text by the names that settings and the command line give it."""

import re
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from .bundled import prose
from .docstrings import docstring_prose
from .document import Document
from .readers import dataset_column, python_reference, read_texts
from .shingles import without_repeats

DOCUMENTS = 2000
"""The first documents of a data set, which are all that is read of it."""

_DATASET = "dataset:"

# The most characters of a module.
_CODE_LENGTH = 8192


def python_code() -> tuple[Document, ...]:
    """Source code of Python's standard library: each public module from its first definition on.

    It exists on every machine that runs CPython from source files. The lines above the first
    definition, docstring and licence, are prose and are left out, and so is a module that repeats
    another. The text differs between Python versions.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    documents = []
    for file in sorted(folder.glob("[a-z]*.py")):
        found = re.search(r"^(?:def|class) .*", file.read_text(encoding="utf-8"), re.M | re.S)
        if found:
            documents.append(Document(file.stem, found[0][:_CODE_LENGTH], "code"))
    return without_repeats(documents)


def standard_library() -> tuple[Document, ...]:
    """Source code of Python's standard library: every module whole, including those of packages.

    These are some 8 megabytes, for training. Tests, tables of character sets and `pydoc_data`,
    which is the Python reference, are left out. Modules that repeat others are not. The text
    differs between Python versions.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = ((file.relative_to(folder), file) for file in folder.rglob("*.py"))
    named = sorted(
        (".".join(inside.with_suffix("").parts), file)
        for inside, file in files
        if not _LEFT_OUT & {*inside.parts}
    )
    texts = ((name, file.read_text(encoding="utf-8")) for name, file in named)
    return tuple(Document(name, text, "code") for name, text in texts if text.strip())


_LEFT_OUT = {
    "__phello__",
    "encodings",
    "idle_test",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
}

_NAMED: dict[str, Callable[[], Sequence[Document]]] = {
    "python_reference": python_reference,
    "prose": prose,
    "docstrings": docstring_prose,
    "python_code": python_code,
    "standard_library": standard_library,
}


def read_documents(source: str) -> Sequence[Document]:
    """The documents of a named corpus, a data set or a text file.

    The names are "python_reference", "prose", "docstrings" (`docstring_prose`), "python_code" and
    "standard_library". A data set is "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT", of which
    the first `DOCUMENTS` documents are read. Anything else is a path for `read_texts`. Except
    in "standard_library", documents that repeat longer ones are left out.

    Raises `FileNotFoundError` if a file does not exist; `ValueError` or `TypeError` for a data set
    or a file without such text, or with half of a surrogate pair in it.
    """
    require_source(source)
    if source in _NAMED:
        return _NAMED[source]()
    if source.startswith(_DATASET):
        name, column, split = _dataset(source)
        texts = dataset_column(name, column, split=split, limit=DOCUMENTS)
    else:
        texts = read_texts(Path(source))
    for number, text in enumerate(texts):
        _require_unicode(text, f"text {number} of {source}")
    return without_repeats([Document(str(number), text, "") for number, text in enumerate(texts)])


def require_source(source: str) -> None:
    """Check a name without reading the text.

    Raises `ValueError` for a data set without a column; `FileNotFoundError` if a file does not
    exist.
    """
    if source.startswith(_DATASET):
        _dataset(source)
    elif source not in _NAMED and not Path(source).is_file():
        raise FileNotFoundError(
            f"there is no text file {source}: give a file, {', '.join(_NAMED)} or "
            f"{_DATASET}NAME:COLUMN"
        )


def _require_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of {name} is half of a surrogate pair "
            f"({text[error.start]!r}), which is no character: replace it by "
            "text.encode(errors='replace').decode()"
        ) from error


def _dataset(source: str) -> tuple[str, str, str]:
    """Name, column and split."""
    parts = source.removeprefix(_DATASET).split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(
            f"{source!r} names no column of a data set: expected {_DATASET}NAME:COLUMN or "
            f"{_DATASET}NAME:COLUMN:SPLIT"
        )
    name, column, *split = parts
    return name, column, split[0] if split else "train"
