"""What is saved of a result: one safetensors file of named tensors, with a note of the rest."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, kind: str, rest: Mapping[str, Any]
) -> None:
    """Write the file, whole or not at all.

    `kind` says what it is of, `rest` is all that JSON can hold. Raises `OSError` where it cannot be
    written, which safetensors tells by an error of its own.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    note = json.dumps({"format": _format(kind), **rest})
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        save_file(contiguous, str(partial), metadata={kind: note})
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


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
