"""Learned writes as bytes and text, so that rows and parameters of units can hold them."""

import base64
import tempfile
from pathlib import Path

from ...intervention.learned_write import LearnedWrite


def write_bytes(write: LearnedWrite) -> bytes:
    """A write as the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "write"
        write.save(file)
        return file.read_bytes()


def read_write(data: bytes) -> LearnedWrite:
    """The write from the bytes of `write_bytes`, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "write"
        file.write_bytes(data)
        return LearnedWrite.load(file)


def encoded_write(data: bytes) -> str:
    """A write's bytes as a parameter of a unit, so that a worker needs no file."""
    return base64.b64encode(data).decode("ascii")


def decoded_write(text: str) -> LearnedWrite:
    """The write from the text of `encoded_write`, in float32."""
    return read_write(base64.b64decode(text))
