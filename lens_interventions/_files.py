"""Files, written whole or not at all; most hold named tensors and JSON values."""

import csv
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from jaxtyping import jaxtyped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

Saved = TypeVar("Saved")

# The name of the hash of a file's contents among its values. Some writes in results/ have none.
_DIGEST = "sha256"

UNFINISHED = ".*.unfinished"
"""Pattern of what a killed process may leave beside a file that it was writing."""


def sha256(path: str | Path) -> str:
    """The hash of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def csv_text(table: "pd.DataFrame") -> str:
    """A table as CSV. Texts are in quotes: without them a token's carriage return ends the row."""
    return table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def require_writable(path: str | Path) -> Path:
    """The path to write a file to: the path itself, or the target of a symbolic link there.

    Call it before the work whose result will be saved. It tries to make a file beside the target,
    because permissions are not enough: root may write everywhere, except on some disks.

    Raises `OSError` if no file can be made there, if anything but a regular file is there (a
    directory, a device, a pipe), or if the name is too long or not valid UTF-8.
    """
    target = Path(os.path.realpath(path))
    try:
        str(target).encode()
        if target.exists() and not target.is_file():
            raise OSError("it is there and is not a regular file")
        if not target.parent.is_dir():
            raise OSError(f"{target.parent} is not a directory to write in")
        with _new_file_beside(target):
            pass
        if sys.platform == "win32" and target.exists():
            # Windows replaces no file that another program holds open.
            target.open("rb+").close()
    except UnicodeEncodeError as error:
        raise OSError(f"{str(path)!r} cannot be written: its name is not valid UTF-8") from error
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    return target


@contextmanager
def _new_file_beside(target: Path) -> Iterator[Path]:
    """An empty file in the directory of `target`, gone afterwards unless it was renamed."""
    # The name is cut, because a longer one may be too long for the disk. No other process draws it.
    temporary = target.with_name(f".{target.name[:20]}.{secrets.token_hex(8)}.unfinished")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path, which replaces the file at `path` when the block ends without an error.

    A symbolic link stays, and its target is replaced. An existing file keeps its mode; a new one
    has the process's default mode.

    Raises `OSError` in the cases of `require_writable`.
    """
    target = require_writable(path)
    with _new_file_beside(target) as temporary:
        mode = (target if target.exists() else temporary).stat().st_mode
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # On Windows a mode only says whether a file is read-only, and then it cannot be replaced.
        if sys.platform != "win32":
            temporary.chmod(mode)
        try:
            temporary.replace(target)
        except PermissionError as error:
            # Python names the temporary file, which is gone by then.
            held = "; close it in other programs" if sys.platform == "win32" else ""
            raise OSError(f"{path} cannot be written: {error.strerror}{held}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as an escape such as `\\ud800`.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, rest: Mapping[str, Any]
) -> None:
    """Write a safetensors file, whole or not at all.

    `kind` names the kind of object, and `rest` holds JSON values. Raises `OSError` if the file
    cannot be written, even where safetensors raises another error.
    """
    # safetensors refuses tensors that share memory, such as views of one stack.
    contiguous: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        contiguous[name] = (tensor.clone() if memory in memories else tensor).contiguous()
        memories.add(memory)
    kept = json.loads(json.dumps(rest))
    note = json.dumps({"format": _format(kind), _DIGEST: _digest(contiguous, kept), **kept})
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, str(temporary), metadata={kind: note})
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def load_tensors(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the rest of a file that `save_tensors` wrote.

    Raises `FileNotFoundError` if there is no file; `ValueError` for any other kind of file, and if
    the file does not hold what was saved.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no {kind} at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            rest = json.loads((file.metadata() or {}).get(kind, "{}"))
            # Views of the mapped file would change with it, and Windows could not replace it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved {kind}: {error}") from error
    if not isinstance(rest, dict) or rest.pop("format", None) != _format(kind):
        raise ValueError(f"{path} is a safetensors file, but not a saved {kind}")
    if rest.pop(_DIGEST, None) not in (None, _digest(tensors, rest)):
        raise ValueError(f"{path} is damaged: it does not hold what was saved; remove it")
    return tensors, rest


def _digest(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> str:
    """A hash of all that a file holds."""
    hashed = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def restored(
    cls: type[Saved], path: str | Path, values: Mapping[str, Any], *lengths: tuple[str, str]
) -> Saved:
    """A dataclass from the values of a file, if they fit its annotations.

    Lists become tuples if the annotation is a tuple. Shapes must agree by the names of their axes.
    `lengths` are the names of a tuple and a tensor that must be equally long, such as
    `("points", "entropy")`.

    Raises a `ValueError` that names the field, its value and what was expected, or what the class
    says against it.
    """
    hints = get_type_hints(cls)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{path} is damaged: {cls.__name__} has no {', '.join(unknown)}")
    given: dict[str, Any] = {}
    with jaxtyped("context"):  # within which an axis has one size
        for name, field in known.items():
            if name not in values:
                if field.default is MISSING and field.default_factory is MISSING:
                    raise ValueError(f"{path} is damaged: it has no {name}")
                continue
            hint, value = hints[name], values[name]
            if get_origin(hint) is tuple and isinstance(value, list):
                value = tuple(value)
            # A tensor is checked here and not in a function, which would have a context of its own
            # in the tests.
            plain = get_origin(hint) in (None, UnionType)
            fits = isinstance(value, hint) if plain else _fits(value, hint)
            if not fits or (hint is int and isinstance(value, bool)):
                raise ValueError(
                    f"{path} is damaged: {name} is {_described(value)}, expected {hint}"
                )
            given[name] = value
    for names, stack in lengths:
        if given.get(stack) is not None and len(given[names]) != len(given[stack]):
            raise ValueError(
                f"{path} is damaged: {len(given[names])} {names}, "
                f"but {len(given[stack])} of {stack}"
            )
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is not None and issubclass(origin, Mapping):
        key, entry = arguments
        return isinstance(value, dict) and all(
            _fits(k, key) and _fits(v, entry) for k, v in value.items()
        )
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"{value!r:.80}"


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in another precision, or unchanged if its values do not fit that precision.

    Raises `ValueError` for a dtype without a fraction, and `TypeError` for what is no dtype.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be one of torch's, such as torch.float16, got {dtype!r}")
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point one, such as torch.float16, got {dtype}")
    narrow = tensor.to(dtype)
    return narrow if bool(narrow.float().isfinite().all()) else tensor


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Named tensors with those of floating point in float32."""
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _format(kind: str) -> str:
    return f"lens_interventions.{kind}/1"
