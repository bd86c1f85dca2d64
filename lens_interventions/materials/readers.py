"""Texts from elsewhere: the Python reference, a user's file, a column of a data set."""

import itertools
import json
from pathlib import Path
from typing import Any

from .document import Document
from .shingles import without_repeats

JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
"""The endings of files with a JSON object on each line."""


def python_reference() -> tuple[Document, ...]:
    """The Python language reference as plain text, one document per topic.

    It is the text of `pydoc_data.topics`, which `help("for")` prints: technical English with code,
    on every machine that runs CPython. Topics that are contained in longer ones are left out, such
    as "for" in "compound": of Python 3.11's 79 topics 56 remain, with 53,000 of their 66,000 words.
    White space around a topic is removed. The text differs between Python versions, so a result
    that uses it should name its version.
    """
    from pydoc_data.topics import topics  # half a megabyte, and only for this

    return without_repeats(
        [Document(title, text.strip(), "reference") for title, text in topics.items()]
    )


def read_texts(path: str | Path, *, field: str | None = None, whole: bool = False) -> list[str]:
    """The documents in a UTF-8 file.

    **Arguments:**

    - `path`: a `.jsonl` (or `.ndjson`, or `.jsonlines`) file with one JSON object per line, or any
        other file, read as plain text in which blank lines separate documents.
    - `field`: the entry of each JSON object that holds the text; by default `"text"`.
    - `whole`: take a plain text file as one document, blank lines and all. The lines of a `.jsonl`
        file are documents in any case.

    Raises `ValueError` if a file is not UTF-8 or has no text, if a line, which the error names, is
    not a JSON object with a string in `field`, or if a `field` is named of a plain text file;
    `FileNotFoundError` if there is no file.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8-sig")  # some editors begin a file with its mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): convert it first") from error
    if path.suffix.lower() in JSON_LINES:
        # Not splitlines(): JSON may contain other line separators unescaped.
        lines = enumerate(content.split("\n"), start=1)
        name = "text" if field is None else field
        texts = [_entry(path, number, line, name) for number, line in lines if line.strip()]
    elif field is not None:
        raise ValueError(
            f"{path} is read as plain text, which has no field {field!r}: a file of JSON objects, "
            f"one on each line, must end in {', '.join(JSON_LINES)}"
        )
    elif whole:
        texts = [content]
    else:
        # A line of spaces looks blank to the file's author.
        paragraphs = itertools.groupby(content.split("\n"), key=lambda line: bool(line.strip()))
        texts = ["\n".join(lines) for has_text, lines in paragraphs if has_text]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"{path} holds no text")
    return texts


def dataset_column(
    name: str, column: str, *, split: str = "train", limit: int | None = None
) -> list[str]:
    """Texts in one column of a Hugging Face data set, in order, without empty ones.

    It reads row by row (`streaming=True`) and stops after `limit` texts, so the beginning of a
    large data set can be read without the rest. `name` is a name on the hub, or a local directory
    of JSON, CSV, Parquet or text files, as for `datasets.load_dataset`.

    Raises `ValueError` if there is no such column or no text in it, or if `limit` is below 1;
    `TypeError` if the column does not hold text. Errors of `datasets`, for a data set or split that
    does not exist, are passed on.
    """
    from datasets import load_dataset  # type: ignore[import-untyped]

    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    rows = load_dataset(name, split=split, streaming=True)
    texts = (text for row in rows if (text := _cell(name, row, column)).strip())
    found = list(itertools.islice(texts, limit))
    if not found:
        raise ValueError(f"column {column!r} of {name} ({split}) holds no text")
    return found


def _entry(path: Path, number: int, line: str, field: str) -> str:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path}, line {number}: its JSON is nested too deeply") from error
    if isinstance(entry, dict) and entry.get(field, "") is None:
        return ""
    if not isinstance(entry, dict) or not isinstance(entry.get(field), str):
        if not isinstance(entry, dict):
            got = type(entry).__name__
        elif field in entry:
            got = f"{type(entry[field]).__name__} there"
        else:
            got = f"the keys {list(entry)}"
        raise ValueError(
            f"{path}, line {number}: expected an object with a string under {field!r}, got {got}"
        )
    return entry[field]


def _cell(name: str, row: dict[str, Any], column: str) -> str:
    if column not in row:
        raise ValueError(f"{name} has no column {column!r}; it has {', '.join(row)}")
    if row[column] is None:
        return ""
    if not isinstance(row[column], str):
        raise TypeError(
            f"column {column!r} of {name} holds {type(row[column]).__name__}, expected text"
        )
    return row[column]
