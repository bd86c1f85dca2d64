"""Files of rows: Parquet, with a stamp that identifies them and a checksum of the file."""

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from ..._files import atomic_file

_STAMP = b"lens_interventions"
# The checksum is in the stamp, and is computed on the file with zeros in its place.
_SEAL = re.compile(rb'"sha256": "([0-9a-f]{64})"')
_NOT_YET = "0" * 64


class DamagedFileError(ValueError):
    """A file does not hold the rows that were written; the message says how this shows."""


def write_rows(target: Path, rows: pd.DataFrame, stamp: Mapping[str, str]) -> None:
    """Write rows with their stamp, whole or not at all."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    note = json.dumps({**stamp, "sha256": _NOT_YET}).encode()
    buffer = io.BytesIO()
    metadata = {**(table.schema.metadata or {}), _STAMP: note}
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    data = buffer.getvalue()
    before, after = _around_seal(data)
    checksum = hashlib.sha256(data).hexdigest().encode()
    with atomic_file(target) as temporary:
        temporary.write_bytes(before + checksum + after)


def read_rows(file: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows and their stamp.

    Raises `DamagedFileError` if any bit has changed, or if the file is of another kind; `OSError`
    if it cannot be read.
    """
    if file.is_dir():
        raise DamagedFileError(f"{file} is damaged or not from this library (it is a directory)")
    data = file.read_bytes()
    try:
        before, after = _around_seal(data)
        unsealed = before + _NOT_YET.encode() + after
        if hashlib.sha256(unsealed).hexdigest().encode() != data[len(before) : -len(after)]:
            raise DamagedFileError("its checksum does not match")
        table = pq.read_table(io.BytesIO(data))
        return table.to_pandas(), json.loads(table.schema.metadata[_STAMP])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{file} is damaged or not from this library ({error})") from error


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of the units of one table, one after the other."""
    # A unit without rows has no types, and would take them from the columns of the others.
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def _around_seal(data: bytes) -> tuple[bytes, bytes]:
    # The stamp is in the footer, after the rows.
    found = list(_SEAL.finditer(data))
    if not found:
        raise DamagedFileError("it has no checksum")
    return data[: found[-1].start(1)], data[found[-1].end(1) :]
