"""How far a closed-form fit has come in a corpus, and the file that it goes on from."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from .._tensor_file import load_tensors, save_tensors
from .ridge import RidgeMoments

_SECONDS_BETWEEN_SAVES = 60.0


class FitCheckpoint:
    """A file that keeps what was summed over the first windows of a corpus.

    Going on skips as many windows, and refuses a corpus whose windows are not the ones that were
    summed. Without a path nothing is kept.
    """

    def __init__(self, path: str | Path | None, settings: Mapping[str, Any]) -> None:
        """`settings` is what must be the same for going on."""
        self.path = None if path is None else Path(path)
        self.done = 0
        self.counts: dict[str, int] = {}
        self._settings = json.loads(json.dumps(dict(settings)))
        self._hash = hashlib.sha256()
        self._expected: str | None = None
        self._saved = time.monotonic()

    @property
    def digest(self) -> str:
        """A hash of the windows so far."""
        return self._hash.hexdigest()[:16]

    def load(self) -> dict[str, Tensor]:
        """The tensors that were kept, empty where none were.

        Raises `ValueError` for a file of other settings or another kind.
        """
        if self.path is None or not self.path.is_file():
            return {}
        tensors, kept = load_tensors(self.path, kind="checkpoint")
        if kept.get("settings") != self._settings:
            raise ValueError(
                f"{self.path} was made with {kept.get('settings')}, this is {self._settings}: "
                "give another path, or remove it"
            )
        self.done, self.counts, self._expected = kept["done"], kept["counts"], kept["digest"]
        return tensors

    def remaining(self, windows: Iterable[Int[Tensor, " pos"]]) -> Iterator[Int[Tensor, " pos"]]:
        """The windows after those that were summed.

        Raises `ValueError` when those before are not the ones that were.
        """
        done, seen = self.done, 0
        for window in windows:
            self._hash.update(window.cpu().numpy().tobytes() + b"|")
            seen += 1
            if seen == done and self.digest != self._expected:
                break
            if seen > done:
                self.done = seen
                yield window
        if done and (seen < done or (seen == done and self.digest != self._expected)):
            raise ValueError(
                f"{self.path} was made from other texts than these: give another path, or remove it"
            )

    def restore(self, tensors: Mapping[str, Tensor], sums: Mapping[str, RidgeMoments]) -> None:
        """Put back what `save` kept of the sums."""
        for name, moments in sums.items():
            kept = {key: tensors[f"{name}.{key}"] for key in moments.tensors()}
            moments.restore(kept, self.counts[name])

    def require_windows(self, holdout: int, window: int) -> None:
        """Raise `ValueError` unless a window was held out."""
        if self.done < holdout:
            raise ValueError(
                f"{self.done} windows of text leave none to choose the ridge on: give more text, "
                f"or a smaller window or holdout than {window} and {holdout}"
            )

    def save(
        self, sums: Mapping[str, RidgeMoments], *, now: bool = False, **others: Tensor
    ) -> None:
        """Keep the sums over the windows so far, if the last time is a minute ago."""
        recent = time.monotonic() - self._saved < _SECONDS_BETWEEN_SAVES
        if self.path is None or (recent and not now):
            return
        tensors = {
            f"{name}.{key}": tensor
            for name, moments in sums.items()
            for key, tensor in moments.tensors().items()
        }
        self.counts = {name: moments.n for name, moments in sums.items()}
        kept = {
            "settings": self._settings,
            "done": self.done,
            "counts": self.counts,
            "digest": self.digest,
        }
        save_tensors(self.path, tensors | others, kind="checkpoint", rest=kept)
        self._saved = time.monotonic()
