"""Files, written whole or not at all; most hold named tensors with a note of the rest."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

UNFINISHED = ".*.unfinished"
"""Pattern of what a killed process may leave beside a file that it was writing."""


def require_writable(path: str | Path) -> Path:
    """Where a file can be written: the path itself, or what a symbolic link at it points to.

    To be asked before the work whose result is to be saved.

    Raises `OSError` if there is no directory to write in, if anything but a regular file is there
    (a directory, a device, a pipe), or if the name is too long or not valid UTF-8.
    """
    target = Path(os.path.realpath(path))
    try:
        str(target).encode()
        found = target.exists()
        if found and not target.is_file():
            raise OSError("it is there and is not a regular file")
        if not os.access(target.parent, os.W_OK | os.X_OK):
            missing = not target.parent.is_dir()
            raise OSError(
                f"{target.parent} is not a directory to write in"
                if missing
                else f"{target.parent} may not be written in"
            )
    except UnicodeEncodeError as error:
        raise OSError(f"{str(path)!r} cannot be written: its name is not valid UTF-8") from error
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    return target


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path, which replaces the file at `path` when the block ends without an error.

    A symbolic link stays and its target is replaced. A file that was there keeps its mode; a new
    one has the mode that the process gives its files.

    Raises `OSError` as `require_writable` does.
    """
    target = require_writable(path)
    # Beside the target, to be renamed; its name is cut, since a longer one may be too long.
    temporary = target.with_name(f".{target.name[:20]}.{secrets.token_hex(4)}.unfinished")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as an escape such as `\\ud800`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, rest: Mapping[str, Any]
) -> None:
    """Write a safetensors file, whole or not at all.

    `kind` says what it is of, `rest` is all that JSON can hold. Raises `OSError` where it cannot be
    written, which safetensors tells by an error of its own.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    note = json.dumps({"format": _format(kind), **rest})
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, str(temporary), metadata={kind: note})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def load_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the rest of a file that `save_tensors` wrote.

    Raises `FileNotFoundError`, and `ValueError` for any other kind of file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no {kind} at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            rest = json.loads((file.metadata() or {}).get(kind, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a saved {kind}: {error}") from error
    if rest.pop("format", None) != _format(kind):
        raise ValueError(f"{path} is a safetensors file, but not of a saved {kind}")
    return tensors, rest


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in another precision, or as it is where that has no room for its values."""
    narrow = tensor.to(dtype)
    return narrow if bool(narrow.isfinite().all()) else tensor


def _format(kind: str) -> str:
    return f"lens_interventions.{kind}/1"
