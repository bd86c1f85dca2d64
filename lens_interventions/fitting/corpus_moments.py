"""Moments of a corpus: the one pass over text that every closed-form fit makes.

Each fit defines the sums that it takes over a window. The windows, the held-out text, and the file
from which a stopped pass continues are the same for all fits.
"""

import hashlib
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._files import load_tensors, require_writable, save_tensors
from .._progress import progress_bar
from ..drawing.labels import counted
from ..model.alterations import alteration
from ..model.argument_types import require_whole_numbers
from ..model.exclusive import exclusive
from ..model.fast_linears import fast_blocks
from ..model.fingerprint import fingerprint, model_hash
from ..model.kinds import ReadableModel, weight_dtype
from ..model.points import select_points
from ..model.readout import require_readable
from ..model.residuals import text_residuals
from ..model.text_pieces import token_pieces
from ..model.tokens import TextOrTokens
from ..model.versions import running_versions
from .ridge import RidgeMoments, RidgeSolution

AddWindow = Callable[
    [RidgeMoments, Int[Tensor, " pos"], Sequence[Float[Tensor, "pos d_model"]]], None
]
"""Adds one window to moments: gets its tokens and their residuals at every point."""

_SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class CorpusMoments:
    """Sums over a corpus.

    Attributes:
        fitted: over the windows that maps are fitted to.
        held_out: over those that choose the ridge.
        counts: `[d_vocab]`, how often each token was fitted to.
        fingerprint: of the model that read the corpus, see `model.fingerprint`.
        settings: what was read and how, for the settings of what is fitted.
    """

    fitted: RidgeMoments
    held_out: RidgeMoments
    counts: Int[Tensor, " d_vocab"]
    fingerprint: str
    settings: dict[str, Any]

    def solve(self) -> list[RidgeSolution]:
        """Every map, with the ridge that is best on what was held out."""
        return [self.fitted.solve(index, self.held_out) for index in range(self.fitted.n_maps)]


@exclusive
@torch.no_grad()
def corpus_moments(
    bridge: ReadableModel,
    texts: Iterable[TextOrTokens],
    add: AddWindow,
    *,
    n_maps: int,
    purpose: str,
    window: int,
    skip_first: int,
    holdout: int,
    prepend_bos: bool | None,
    checkpoint: str | Path | None,
    progress: bool,
) -> CorpusMoments:
    """Read texts once, and sum the moments that `add` takes of each window, for `n_maps` maps.

    **Arguments:**

    - `texts`: read in windows of at most `window` tokens.
    - `add`: called once for each window, without its first `skip_first` tokens, as outliers are.
    - `n_maps`: how many regressions there are.
    - `purpose`: the name of the fit, by which checkpoints of different fits are distinguished.
    - `holdout`: one window in this many is summed separately, to choose the ridge on.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `checkpoint`: a file to which the sums are written every minute. The same call continues from
        it and gives the same numbers.
    - `progress`: show a progress bar over tokens.

    Raises `TypeError` if `window`, `skip_first` or `holdout` is not a whole number; `ValueError` if
    one of them leaves no windows, if there are fewer windows than `holdout`, if the checkpoint
    belongs to another fit or other texts or could not record what changes the model besides its
    weights (hooks, another forward of a module, `torch.autocast`), or if the residual stream is not
    finite; `ValueError` or `NotImplementedError` if the model's readout is not its final norm and
    its unembedding.
    """
    window, skip_first, holdout = _checked(window, skip_first, holdout, int(bridge.cfg.n_ctx))
    if checkpoint is not None and (altered := alteration(bridge)):
        raise ValueError(
            f"{altered}, which a checkpoint could not record: undo that first, or leave the "
            "checkpoint out"
        )
    require_readable(bridge)
    d_model, device = int(bridge.cfg.d_model), bridge.W_U.device
    labels = select_points(int(bridge.cfg.n_layers))
    fitted, held_out = (RidgeMoments(n_maps, d_model, d_model, device) for _ in "ab")
    counts = torch.zeros(len(bridge.W_E), dtype=torch.long, device=device)
    weights_hash = fingerprint(bridge)
    settings = {"window": window, "skip_first": skip_first, "holdout": holdout}
    kept = _Checkpoint(
        checkpoint,
        {"purpose": purpose, "model": model_hash(bridge), **settings},
        {"fitted": fitted, "held_out": held_out},
        counts,
    )
    kept.restore()
    windows = (
        piece
        for piece in token_pieces(bridge, texts, length=window, prepend_bos=prepend_bos)
        if len(piece) > skip_first
    )
    bar = progress_bar(shown=progress, unit="token", desc="fitting", initial=fitted.n + held_out.n)
    # The corpus has at least this many windows; nothing else is known of its size.
    with bar, fast_blocks(bridge, holdout * window):
        for piece in kept.remaining(windows):
            tokens = piece[skip_first:]
            streams = text_residuals(bridge, piece, labels, first=skip_first)
            moments = held_out if kept.done % holdout == 0 else fitted
            if moments is fitted:
                counts += torch.bincount(tokens, minlength=len(counts))
            add(moments, tokens, streams)
            moments.n += len(tokens)
            bar.update(len(tokens))
            kept.save()
    kept.require_windows(holdout, window)
    kept.save(now=True)
    note = {
        "model": str(bridge.cfg.model_name),
        "dtype": str(weight_dtype(bridge)).removeprefix("torch."),
        "tokens": fitted.n,
        "held_out_tokens": held_out.n,
        "corpus_hash": kept.digest,
        # Other versions may run the model differently from those under which a lens was fitted.
        "versions": running_versions(),
        **settings,
    }
    return CorpusMoments(fitted, held_out, counts.cpu(), weights_hash, note)


def _checked(window: int, skip_first: int, holdout: int, context: int) -> tuple[int, int, int]:
    """The numbers, as Python's, with the window cut to the model's context."""
    require_whole_numbers(window=window, skip_first=skip_first, holdout=holdout)
    if window < 2:
        raise ValueError(f"window must be at least 2 tokens, got {window}")
    if holdout < 2 or skip_first < 0:
        raise ValueError(
            "holdout must be at least 2, since one window in that many is not fitted to, and "
            f"skip_first at least 0; got {holdout} and {skip_first}"
        )
    window, skip_first, holdout = map(operator.index, (window, skip_first, holdout))
    window = min(window, context)
    if skip_first >= window:
        raise ValueError(f"skip_first={skip_first} leaves nothing of windows of {window} tokens")
    return window, skip_first, holdout


class _Checkpoint:
    """A file that keeps what was summed over the first windows of a corpus.

    A continued pass skips those windows, and refuses a corpus with other windows. Without a path
    nothing is kept.

    Attributes:
        path: of the file, or None.
        done: how many windows were summed.
    """

    def __init__(
        self,
        path: str | Path | None,
        settings: Mapping[str, Any],
        sums: Mapping[str, RidgeMoments],
        counts: Tensor,
    ) -> None:
        """It keeps `sums` and `counts`; a pass continues only with the same `settings`."""
        self.path = None if path is None else Path(path)
        self.done = 0
        self._sums, self._counts = sums, counts
        self._settings = dict(settings)
        self._hash = hashlib.sha256()
        self._expected: str | None = None
        self._saved = time.monotonic()

    @property
    def digest(self) -> str:
        """A hash of the windows so far."""
        return self._hash.hexdigest()[:16]

    def restore(self) -> None:
        """Put what was kept back into the sums and counts, if there is a file.

        Raises `ValueError` if the file is of other settings or of another kind, or if something in
        it is missing or does not fit.
        """
        if self.path is None:
            return
        require_writable(self.path)
        if not self.path.is_file():
            return
        tensors, kept = load_tensors(self.path, kind="checkpoint")
        if kept.get("settings") != self._settings:
            raise ValueError(
                f"{self.path} was made with {kept.get('settings')}, but this is {self._settings}: "
                "give another path, or remove it"
            )
        expected = {"done": int, "counts": dict, "digest": str}
        if wrong := [name for name, kind in expected.items() if type(kept.get(name)) is not kind]:
            raise ValueError(f"{self.path} is damaged in {', '.join(wrong)}: remove it")
        self.done, self._expected = kept["done"], kept["digest"]
        try:
            for name, moments in self._sums.items():
                of_sum = {key: tensors[f"{name}.{key}"] for key in moments.tensors()}
                moments.restore(of_sum, kept["counts"][name])
            self._counts.copy_(tensors["counts"])
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{self.path} is damaged ({error}): remove it") from error

    def remaining(self, windows: Iterable[Int[Tensor, " pos"]]) -> Iterator[Int[Tensor, " pos"]]:
        """The windows after those that were summed.

        Raises `ValueError` if the windows before are not those that were summed.
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

    def require_windows(self, holdout: int, window: int) -> None:
        """Raise `ValueError` if no window was held out."""
        if self.done < holdout:
            raise ValueError(
                f"{counted(self.done, 'window')} of at most {window} tokens are too few: one in "
                f"{holdout} is held out to choose the ridge, so at least {holdout} are needed; "
                "give more text, or a smaller window"
            )

    def save(self, *, now: bool = False) -> None:
        """Keep the sums and counts over the windows so far, at most once a minute unless `now`."""
        recent = time.monotonic() - self._saved < _SECONDS_BETWEEN_SAVES
        if self.path is None or (recent and not now):
            return
        tensors = {
            f"{name}.{key}": tensor
            for name, moments in self._sums.items()
            for key, tensor in moments.tensors().items()
        }
        kept = {
            "settings": self._settings,
            "done": self.done,
            "counts": {name: moments.n for name, moments in self._sums.items()},
            "digest": self.digest,
        }
        save_tensors(self.path, tensors | {"counts": self._counts}, kind="checkpoint", rest=kept)
        self._saved = time.monotonic()
