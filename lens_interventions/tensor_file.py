"""Named tensors and a header of text in one safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, str]
) -> None:
    """Write the file.

    Raises `OSError` where it cannot be written, which safetensors tells by an error of its own.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, str(path), metadata=dict(header))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
