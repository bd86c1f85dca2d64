"""The lens over many texts, read one after another."""

import inspect
from collections.abc import Iterable, Mapping, Sized
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .._progress import progress_bar
from ..model.argument_types import require_counts_or_none
from ..model.exclusive import exclusive
from ..model.kinds import ReadableModel
from ..model.text_pieces import NO_TEXT
from ..model.tokens import TextOrTokens, TokenBatch, about, is_text, require_texts, token_batch
from .aggregate import LensAggregate
from .cells import PositionError
from .logit_lens import logit_lens
from .statistics import averaged
from .trajectory import Trajectory


@exclusive
def lens_over(
    bridge: ReadableModel,
    texts: Iterable[TextOrTokens],
    *,
    max_tokens: int | None = None,
    prepend_bos: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> LensAggregate:
    """Read many texts, one after the other, keeping only sums over each text's positions.

    **Arguments:**

    - `texts`: any iterable, read once, such as a generator over a corpus. Each item is a text, or
        several, such as a tensor of ids in which every row is one.
    - `max_tokens`: read no more than this many tokens of each text, or than the model's context if
        that is shorter. Without it a text must fit the context.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`. A first token is often an outlier:
        `positions=(1, None)` leaves it out.
    - `options`: options of `logit_lens`, such as `points`, `positions`, `norm` and `lens`; all
        except those that ask for what is not kept (`top_k`, `watch`, `compare_with` and further
        `divergences`), and `attention_mask`, as a text has no padding. A text without any of the
        `positions`, because it is shorter, has counts of 0.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if there is no text, if none has the `positions`, if one cannot be read (the
    message names it by its number), or for an option that is excepted; `NotImplementedError` if the
    model is recurrent or not a causal decoder; `TypeError` if `texts` is one text, one is neither
    text nor ids, or `logit_lens` has no such option.
    """
    if unknown := sorted(options.keys() - inspect.signature(logit_lens).parameters):
        raise TypeError(
            f"lens_over takes the options of logit_lens, which has none called {', '.join(unknown)}"
        )
    if "attention_mask" in options:
        raise ValueError(
            "lens_over reads each text alone: give the ids of each text without padding, and no "
            "attention_mask"
        )
    _refuse_what_is_not_kept(options)
    require_texts(bridge, texts)
    require_counts_or_none(max_tokens=max_tokens)
    if max_tokens is not None:
        max_tokens = min(max_tokens, int(bridge.cfg.n_ctx))
    points: tuple[str, ...] = ()
    read: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    n_texts = 0
    for number, item in enumerate(progress_bar(texts, shown=progress, unit="text", desc="lens")):
        with about(f"text {number}"):
            for row in _rows(bridge, item, max_tokens, prepend_bos if is_text(item) else None):
                with suppress(PositionError):
                    # Without a mask, a last token that could be padding would give a warning.
                    whole = torch.ones_like(row[None])
                    trajectory = logit_lens(
                        bridge, row[None], attention_mask=whole, top_k=1, **options
                    )
                    points, read[n_texts] = trajectory.points, _sums(trajectory)
                n_texts += 1
    if not n_texts:
        raise ValueError(NO_TEXT)
    if not read:
        raise ValueError(
            f"no text has the positions {options['positions']!r}: give longer texts, or other "
            "positions"
        )
    totals = np.zeros((len(averaged()), len(points), n_texts))
    counts = np.zeros((len(averaged()), n_texts), dtype=np.int64)
    while read:  # not held twice, as sums of many texts are large
        place, (text_totals, text_counts) = read.popitem()
        totals[..., place], counts[..., place] = text_totals, text_counts
    return LensAggregate(points, tuple(averaged()), totals, counts)


def _refuse_what_is_not_kept(options: Mapping[str, Any]) -> None:
    kept = averaged().values()
    targets, kinds = ({getattr(row, of) for row in kept} for of in ("target", "kind"))
    compared = options.get("compare_with", "final") != "final"
    watch = options.get("watch")
    # A tensor of several ids is neither true nor false.
    watched = watch is not None and not (isinstance(watch, Sized) and len(watch) == 0)
    listed = options.get("divergences")
    # Anything else is refused by `logit_lens`.
    asked = set(listed) if isinstance(listed, (list, tuple, set, frozenset)) else set()
    further = sorted(asked - kinds)
    for name, what, lost in (
        ("top_k", "top tokens", "top_k" in options),
        ("watch", "watched tokens", watched and "watched" not in targets),
        ("compare_with", "comparison with another point", compared and "compare" not in targets),
        ("divergences", f"{further}", further),
    ):
        if lost:
            raise ValueError(
                f"lens_over keeps no {what}, so it takes no {name}: read the texts by logit_lens"
            )


def _rows(
    bridge: ReadableModel, text: TextOrTokens, max_tokens: int | None, prepend_bos: bool | None
) -> list[Int[Tensor, " _"]]:
    """The first tokens of each text of an item, without padding."""
    if max_tokens is None:
        return token_batch(bridge, text, prepend_bos=prepend_bos).rows()
    return _first(bridge, text, max_tokens, prepend_bos).rows()


def _first(
    bridge: ReadableModel, text: TextOrTokens, max_tokens: int, prepend_bos: bool | None
) -> TokenBatch:
    def first(length: int) -> TokenBatch:
        part = text[:length] if isinstance(text, str) else text
        batch = token_batch(bridge, part, prepend_bos=prepend_bos, any_length=True)
        batch = batch.padded_on("right")
        return TokenBatch(batch.tokens[:, :max_tokens], batch.mask[:, :max_tokens])

    # Only the beginning of a long text is tokenized: enough that twice as much begins alike.
    characters = 8 * max_tokens
    found = first(characters)
    while isinstance(text, str) and characters < len(text):
        characters *= 2
        found, before = first(characters), found
        enough = found.tokens.shape[1] == max_tokens
        if enough and torch.equal(found.tokens, before.tokens):
            break
    return found


def _sums(
    trajectory: Trajectory,
) -> tuple[Float[np.ndarray, "statistic point"], Int[np.ndarray, " statistic"]]:
    has_next = trajectory.mask & (trajectory.next_tokens >= 0)
    totals, counts = [], []
    for statistic in averaged().values():
        value = trajectory.statistic(statistic.name).double()
        if statistic.unit == "rank":
            value = (1 + value.where(value >= 0, torch.nan)).log10()
        there = has_next if statistic.target == "next" else trajectory.mask
        # A token that the unembedding excludes has no log-probability and no rank.
        there = there & value.isfinite().all(0)
        totals.append(value[:, there].sum(-1).numpy())
        counts.append(int(there.sum()))
    return np.stack(totals), np.array(counts)
