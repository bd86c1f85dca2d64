"""GGUF files, converted once into directories that transformers loads, in the user's cache."""

import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from .._progress import progress_bar
from .user_cache import CACHE_VARIABLE, cache_directory
from .whole_weights import whole_weights

_SIZES = "sizes.json"
LOCK = "converting.lock"
_END_BYTES = 1 << 20


def gguf_model(file: Path) -> Path:
    """The directory of a converted GGUF file, which is made if the file is new or has changed.

    Raises `ValueError` if the file is not a whole GGUF of an architecture that transformers
    converts, and `OSError` if the cache directory cannot be written or lacks space.
    """

    def find(scratch: Path) -> Path:
        require_space(_float32_bytes(file), scratch)
        return file

    try:
        return converted(f"{file.stem}-{_identity(file)}", find)
    except (ValueError, IndexError, NotImplementedError) as error:  # by damage, by architecture
        raise ValueError(
            f"{file} cannot be converted: {error}. Expected a whole GGUF file of an architecture "
            "that transformers reads from GGUF"
        ) from error


def converted(name: str, find: Callable[[Path], Path]) -> Path:
    """The directory of the converted model `name`, which is made if it is missing or not whole.

    `find` is given a scratch directory and returns the GGUF file. The conversion happens there,
    under a lock, and the result is renamed when it is complete. So an interrupted conversion, or
    two at the same time, leave one whole model or none.

    Raises `OSError`, which says what to do, if the cache directory cannot be written or lacks
    space. Errors of `find` are passed on.
    """
    cache = cache_directory()
    directory = cache / name
    try:
        if not _is_whole(directory):
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / LOCK):
                if not _is_whole(directory):  # another process may have made it meanwhile
                    _make(directory, find)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:  # not the file system's
            raise
        raise OSError(
            f"The model {name} cannot be kept in {cache}: {error}. It needs a writable directory "
            f"with room for its weights in float32: make room, or set {CACHE_VARIABLE} to another "
            "one."
        ) from error
    return directory


def require_space(wanted: int, directory: Path) -> None:
    """Raise `OSError` if fewer than `wanted` bytes are free where `directory` is."""
    if shutil.disk_usage(directory).free < wanted:
        raise OSError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {wanted / 1e6:.0f} MB are needed"
        )


def _is_whole(directory: Path) -> bool:
    try:
        sizes = json.loads((directory / _SIZES).read_text())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, ValueError):
        return False


def _make(directory: Path, find: Callable[[Path], Path]) -> None:
    cache = directory.parent
    # The lock is held, so no other process works in what an interrupted conversion left behind.
    for leftover in [*cache.glob(".converting-*"), directory]:
        if leftover.exists():
            shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as scratch:
        gguf = find(Path(scratch))
        made = Path(scratch) / directory.name
        _convert(gguf, made)
        sizes = {file.name: file.stat().st_size for file in made.iterdir()}
        (made / _SIZES).write_text(json.dumps(sizes))
        made.replace(directory)


def _identity(file: Path) -> str:
    """A hash of a file's size, time and ends, since reading several gigabytes takes seconds."""
    found = file.stat()
    with file.open("rb") as stream:
        start = stream.read(_END_BYTES)
        stream.seek(max(0, found.st_size - _END_BYTES))
        ends = start + stream.read()
    hashed = hashlib.sha256(f"{found.st_size} {found.st_mtime_ns} ".encode() + ends)
    return hashed.hexdigest()[:12]


def _float32_bytes(gguf: Path) -> int:
    from gguf import GGUFReader  # not needed once the model is converted

    return 4 * sum(int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors)


def _convert(gguf: Path, directory: Path) -> None:
    # Not needed once the model is converted.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, file = gguf.parent, gguf.name
    with _read_once(), progress_bar(total=3, desc=f"Converting {file}, once", unit="step") as bar:
        with whole_weights():
            loaded = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=file, dtype=torch.float32
            )
        bar.update()
        # A model loaded from GGUF counts as quantized and refuses to be saved: save its double.
        settings = loaded.config.to_dict()
        del settings["quantization_config"]
        config = type(loaded.config).from_dict(settings)
        with torch.device("meta"):
            double = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        double.save_pretrained(directory, state_dict=loaded.state_dict())
        bar.update()
        AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(directory)
        bar.update()


@contextmanager
def _read_once() -> Iterator[None]:
    """Keep what `gguf` reads: transformers asks for the file thrice, and for the names per module.

    Otherwise most of a conversion goes into reading the same vocabulary and naming the same tensors
    again.
    """
    import gguf

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in slow.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in slow.items():
            setattr(gguf, name, function)
