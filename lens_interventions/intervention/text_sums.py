"""Sums over the predictions of each text, kept in a file as they are made."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._files import require_writable, write_text
from .._progress import progress_bar
from ..model.alterations import alteration
from ..model.fingerprint import model_hash
from ..model.text_pieces import bos_id
from ..model.tokens import TextOrTokens
from ..model.user_hooks import has_user_hooks
from .known_text import KnownText
from .patch import NextTokenPatch, warn_if_out_of_reach
from .pieces import TextTokens, piece_batches, text_tokens
from .settings_key import settings_key

# Values of each piece of a batch, all of which are sums over the piece's predictions.
Measure = Callable[[KnownText], Float[Tensor, "piece ..."]]


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Attributes:
        max_length: tokens of a piece; each piece is read as a separate text.
        prepend_bos: as in `TransformerBridge.to_tokens`.
        progress: show a progress bar over texts.
        checkpoint: a file for the sums of finished texts, from which a later call goes on.
        settings: what is measured, by name: the file is for these values and no others.
        patches: those that act on the texts. If one acts at numbered positions, which each piece
            would count anew, a text of several pieces is refused.
    """

    max_length: int
    prepend_bos: bool | None
    progress: bool
    checkpoint: str | Path | None
    settings: Mapping[str, Any]
    patches: Sequence[NextTokenPatch] = ()


def text_sums(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    measure: Measure,
    shape: tuple[int, ...],
    reading: Reading,
) -> Float[np.ndarray, "text ..."]:
    """The values of `measure`, which have this shape, summed over a text's pieces, in float64.

    Raises `ValueError` if no text has a token to predict, if a value is not finite, if the file is
    damaged or holds other sums, or if it could not know the settings again, as with a lambda, or
    the hooks on the bridge, another forward of a module or `torch.autocast`; `TypeError` for one
    text where many are expected; `OSError` if the file cannot be written, or another process is
    writing it. Warns if no text has one of the positions that a patch names.
    """
    if reading.checkpoint is not None and (altered := alteration(bridge)):
        raise ValueError(
            f"{altered}, which {reading.checkpoint} could not record: undo that first, or leave "
            "out the file"
        )
    path = None if reading.checkpoint is None else Path(reading.checkpoint)
    # Every piece begins with the BOS token, if the text does.
    model = {"model": model_hash(bridge), "BOS token": bos_id(bridge)}
    with _held(path):
        kept = _Kept(path, {**model, **reading.settings}, shape)
        return _summed(bridge, texts, measure, shape, reading, kept)


def _summed(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    measure: Measure,
    shape: tuple[int, ...],
    reading: Reading,
    kept: "_Kept",
) -> Float[np.ndarray, "text ..."]:
    keys: list[str] = []
    sums: list[np.ndarray] = []
    lengths: list[int] = []
    pieces: list[int] = []
    n_texts = len(texts) if isinstance(texts, Sized) else None
    bar = progress_bar(shown=reading.progress, total=n_texts, unit="text", desc="reading")
    done = 0.0  # in texts, of which each piece is a part

    def unread() -> Iterator[tuple[int, TextTokens]]:
        nonlocal done
        for number, text in enumerate(text_tokens(bridge, texts, reading.prepend_bos)):
            keys.append(text.key)
            lengths.append(len(text.tokens))
            pieces.append(len(text.pieces(reading.max_length)))
            sums.append(kept.rows.get(text.key, np.zeros(shape)))
            if text.key in kept.rows or not pieces[-1]:
                done += 1
            if text.key not in kept.rows:
                yield number, text

    whole = any(not isinstance(patch.positions, str) for patch in reading.patches)
    # A user's hook may look along positions, where it would see the padding of a batch.
    alone = has_user_hooks(bridge)
    with bar:
        for batch in piece_batches(unread(), reading.max_length, whole=whole, alone=alone):
            values = measure(batch.text).cpu().double().numpy()
            if not np.isfinite(values).all():
                raise ValueError(
                    f"what is measured on texts {sorted(set(batch.owners))} is not finite: look "
                    "for a hook, source, mode or strength with such values, or a half-precision "
                    "overflow"
                )
            for owner, of_piece in zip(batch.owners, values, strict=True):
                sums[owner] = sums[owner] + of_piece
            for number in batch.finished:
                kept.add(keys[number], sums[number])
            done += sum(1 / pieces[owner] for owner in batch.owners)
            share = round(done, 2)
            bar.n = int(share) if share.is_integer() else share
            bar.update(0)
        bar.update(len(keys) - bar.n)  # with those that needed no batch
    for patch in reading.patches if lengths else ():
        warn_if_out_of_reach(patch, torch.tensor(lengths))
    if not any(of_text.any() for of_text in sums):
        if not any(of_text.any() for of_text in kept.rows.values()):
            kept.remove()  # it would be in the way of a call with other scopes
        raise ValueError("there is no text with a token to predict that the scopes count")
    return np.stack(sums)


def remove_lock(path: Path) -> None:
    """Remove the file whose lock keeps others from `path`, unless a process holds it."""
    lock = _lock_beside(path)
    with suppress(Timeout, OSError), FileLock(lock, timeout=0):
        lock.unlink()


def _lock_beside(path: Path) -> Path:
    # The name is cut, because a longer one may be too long for the disk.
    return path.with_name(f".{path.name[-50:]}.lock")


@contextmanager
def _held(path: Path | None) -> Iterator[None]:
    """Keep other calls and processes from a file, by a lock beside it, which stays there."""
    if path is None:
        yield
        return
    target = require_writable(path)
    try:
        with FileLock(_lock_beside(target), timeout=0):
            yield
    except Timeout as error:
        raise OSError(
            f"another call or process is writing {path}: wait for it, or name another file"
        ) from error


class _Kept:
    """A file of JSON lines: what was measured, then the sums of a text on each."""

    def __init__(
        self, path: Path | None, settings: Mapping[str, Any], shape: tuple[int, ...]
    ) -> None:
        self.rows: dict[str, np.ndarray] = {}
        self._path = path
        if path is None:
            return
        asked = {name: settings_key(value) for name, value in settings.items()}
        self._head = json.dumps(asked)
        if not path.exists():  # nothing is in the way of another call until there are sums
            return
        first, *lines = path.read_text(errors="replace").split("\n")
        try:
            found = json.loads(first)
        except json.JSONDecodeError:
            found = None
        if not lines:
            raise _damaged(path, 1)
        found = found if isinstance(found, dict) else {}
        different = [key for key in asked if _differ(found.get(key), asked[key])]
        if different:
            raise ValueError(
                f"{path} holds sums of another measurement, which differs in "
                f"{', '.join(different)}: name another file, or remove this one"
            )
        # If the run was stopped, the last line may be incomplete.
        whole = lines[:-1]
        for number, line in enumerate(whole, 2):
            try:
                row = json.loads(line)
                self.rows[row["text"]] = np.array(row["sums"], dtype=float).reshape(shape)
            except (ValueError, TypeError, KeyError) as error:
                raise _damaged(path, number) from error
        if lines[-1]:
            write_text(path, "\n".join([first, *whole, ""]))

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def add(self, key: str, sums: Float[np.ndarray, "..."]) -> None:
        if self._path is not None:
            if not self._path.exists():
                write_text(self._path, self._head + "\n")
            with self._path.open("a") as file:
                file.write(json.dumps({"text": key, "sums": sums.ravel().tolist()}) + "\n")


def _damaged(path: Path, line: int) -> ValueError:
    return ValueError(f"{path} is damaged in line {line}: remove it, or name another file")


def _differ(kept: object, asked: object) -> bool:
    # As JSON, nan is nan.
    return kept != asked and json.dumps(kept) != json.dumps(asked)
