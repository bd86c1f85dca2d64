"""The meaning of a model's name: the default, a GGUF file, a directory, or a name on the hub."""

import os
import re
from pathlib import Path


def gguf_file(name: str | os.PathLike[str]) -> Path | None:
    """The GGUF file that `name` means, or None for something else.

    Raises `FileNotFoundError` if it is not there.
    """
    path = _expanded(name)
    if path.suffix != ".gguf" or path.is_dir():
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no GGUF file {path}")
    return path


def local_directory(name: str | os.PathLike[str]) -> Path | None:
    """The directory that `name` means, or None for a name on the hub.

    Raises `FileNotFoundError` for a directory without a model, for a file, and for a name that can
    be neither.
    """
    path = _expanded(name)
    if os.fspath(name) and path.is_dir():  # an empty name would be the current directory
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"{path} has no config.json: expected a model directory as save_pretrained makes it"
            )
        return path
    if path.is_file() and path.suffix:  # a name without a suffix may be one on the hub, too
        raise FileNotFoundError(
            f"{path} is a file, and its name does not end in .gguf: give a GGUF file, a model "
            "directory or a name on the hub"
        )
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", str(name)):
        raise FileNotFoundError(
            f"{str(name)!r} is not a directory, a GGUF file or a hub name ('model' or "
            "'owner/model')"
        )
    return None


def _expanded(name: str | os.PathLike[str]) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111, as Path's raises for unknown users
