"""Losses and ranks on copies and on natural text under arms, summed per sequence."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...measures.behaviour import bin_by, copyable, surprise_distance
from ..engine.json_values import Values, from_values
from ..engine.work_units import unit_kind
from .conditions import ARM_COLUMNS, NO_PATCH, Arm, PatchSettings
from .scores import at_end, read_log_probs, read_ranks
from .sequences import TokenSequence
from .totals import ROW_COLUMNS

Patch = Values | PatchSettings
Row = tuple[Any, ...]
"""The values of `ROW_COLUMNS`."""

# `dataclasses.astuple` copies each value.
_ARM_VALUES = attrgetter(*ARM_COLUMNS)


@unit_kind("copies of random tokens")
def measure_induction(
    bridge: TransformerBridge, sequences: Sequence[Values], arms: Sequence[Values], patch: Patch
) -> pd.DataFrame:
    """Loss and top-1 accuracy on the second copy.

    Its first token is left out, because nothing announces it.
    """
    texts, conditions, settings = parse(sequences, arms, patch)
    copied = texts[0].copied
    last = [copied - 1] * len(texts)
    tokens = _tokens(texts)
    where = at_end(tokens, last)
    read = read_ranks(bridge, tokens, conditions, settings, numbers(texts), where)
    second = slice(1 - copied, None)
    values = {
        "loss": -read.log_prob[..., second],
        "top1": (read.rank[..., second] == 0).double(),
    }
    counts = np.array(last)
    tags = [text.tags for text in texts]
    return table_of(
        row
        for measure, v in values.items()
        for row in rows_of(texts, conditions, measure, tags, v.sum(-1), counts)
    )


@unit_kind("words of templates")
def measure_templates(
    bridge: TransformerBridge,
    sequences: Sequence[Values],
    arms: Sequence[Values],
    patch: Patch,
    ranks: bool,
) -> pd.DataFrame:
    """Log-probability of the whole word; with `ranks` also the zero-based rank of its first token.

    The measures are "log_prob", "rank", "log_rank" (`log(1 + rank)`) and "top1".
    """
    texts, conditions, settings = parse(sequences, arms, patch)
    tokens = _tokens(texts)
    words = at_end(tokens, [text.copied for text in texts])
    values: dict[str, Tensor] = {}
    if ranks:
        read = read_ranks(bridge, tokens, conditions, settings, numbers(texts), words)
        first = [len(text.tokens) - text.copied - 1 for text in texts]
        log_probs = read.log_prob
        rank = read.rank[:, torch.arange(len(texts)), first].double()
        values = {"rank": rank, "log_rank": rank.log1p(), "top1": (rank == 0).double()}
    else:
        log_probs = read_log_probs(bridge, tokens, conditions, settings, numbers(texts), words)
    of_word = log_probs.nansum(-1)  # all else is NaN
    tags, ones = [text.tags for text in texts], np.ones(len(texts))
    return table_of(
        row
        for measure, v in {"log_prob": of_word, **values}.items()
        for row in rows_of(texts, conditions, measure, tags, v, ones)
    )


@unit_kind("natural text")
def measure_text(
    bridge: TransformerBridge,
    sequences: Sequence[Values],
    arms: Sequence[Values],
    patch: Patch,
    edges: Sequence[float],
    surprising: float,
    recent: int,
) -> pd.DataFrame:
    """Loss by the kind of token that is predicted, and by what came before it.

    The tokens of each text are divided in four ways: copyable or not (tags "copyable", "other"), by
    the surprisal of the token before ("bin-0" and on), by when the last surprising token came
    ("surprise-now", "surprise-recent", "surprise-none"), and by whether the token was surprising
    where it first stood in the text ("repeat" or "repeat-none"). Tags of repeats also say how far
    back that is: "repeat-32" for up to 32 tokens, "repeat-128" and "repeat-far". Surprisal is that
    without a patch.
    """
    texts, conditions, settings = parse(sequences, arms, patch)
    measured = list(dict.fromkeys([NO_PATCH, *conditions]))
    log_probs = read_log_probs(bridge, _tokens(texts), measured, settings, numbers(texts))
    unpatched = -log_probs[measured.index(NO_PATCH)]
    rows: list[Row] = []
    for number, text in enumerate(texts):
        length = len(text.tokens) - 1
        loss = -log_probs[[measured.index(arm) for arm in conditions], number, :length]
        for tag, where in _divisions(text, unpatched[number, :length], edges, surprising, recent):
            total, count = loss[:, where].sum(-1), int(where.sum())
            tags = f"{text.tags} {tag}"
            rows += rows_of([text], conditions, "loss", [tags], total[:, None], [count])
    return table_of(rows)


@unit_kind("repeats of surprising tokens")
def measure_repeats(
    bridge: TransformerBridge,
    sequences: Sequence[Values],
    arms: Sequence[Values],
    patch: Patch,
    surprising: float,
) -> pd.DataFrame:
    """Loss on the later repeats of tokens that were surprising where they first stood.

    The tags are those of `measure_text`. Repeats are few, so only they are read under the arms; the
    rows of all other tokens, "repeat-none", are those of the model without a patch.
    """
    texts, conditions, settings = parse(sequences, arms, patch)
    tokens, seeds = _tokens(texts), numbers(texts)
    unpatched = -read_log_probs(bridge, tokens, [NO_PATCH], settings, seeds)
    lengths = [len(row) - 1 for row in tokens]
    divisions = [
        _repeats(text, nats[:length], surprising)
        for text, nats, length in zip(texts, unpatched[0], lengths, strict=True)
    ]
    repeats = torch.zeros_like(unpatched[0], dtype=torch.bool)
    for where, length, of_text in zip(repeats, lengths, divisions, strict=True):
        where[:length] = ~dict(of_text)["repeat-none"]
    patched = [arm for arm in conditions if arm != NO_PATCH]
    losses = unpatched
    if patched:
        read = read_log_probs(bridge, tokens, patched, settings, seeds, repeats)
        losses = torch.cat([unpatched, -read])
    rows: list[Row] = []
    for number, (text, of_text) in enumerate(zip(texts, divisions, strict=True)):
        for tag, where in of_text:
            counted = [NO_PATCH] if tag == "repeat-none" else [NO_PATCH, *patched]
            loss = losses[: len(counted), number, : len(where)][:, where].sum(-1)
            told = [arm for arm in counted if arm in conditions]
            total = loss[[counted.index(arm) for arm in told], None]
            tags = [f"{text.tags} {tag}"]
            rows += rows_of([text], told, "loss", tags, total, [int(where.sum())])
    return table_of(rows)


def _divisions(
    text: TokenSequence,
    nats: Float[Tensor, " next"],
    edges: Sequence[float],
    surprising: float,
    recent: int,
) -> list[tuple[str, Bool[Tensor, " next"]]]:
    """The tags of the four divisions, each with its predictions."""
    tokens = torch.tensor(text.tokens)
    # The surprisal of x[i], where x[i + 1] is predicted; that of the first token is not known.
    before = torch.cat([nats.new_full((1,), torch.nan), nats[:-1]])
    is_copyable = copyable(tokens[None])[0, :-1]
    bins = bin_by(before[None], edges).index[0]
    now = before >= surprising
    lately = torch.nn.functional.pad(now, (recent - 1, 0)).unfold(0, recent, 1).any(-1)
    known = ~before.isnan()
    return [
        ("copyable", is_copyable),
        ("other", ~is_copyable),
        *[(f"bin-{index}", bins == index) for index in range(len(edges) + 1)],
        ("surprise-now", now),
        ("surprise-recent", lately & ~now),
        ("surprise-none", known & ~lately),
        *_repeats(text, nats, surprising),
    ]


def _repeats(
    text: TokenSequence, nats: Float[Tensor, " next"], surprising: float
) -> list[tuple[str, Bool[Tensor, " next"]]]:
    """The tags of repeats of surprising tokens, each with its predictions."""
    back = surprise_distance(torch.tensor(text.tokens)[None], nats[None], surprising)[0]
    return [
        ("repeat repeat-32", (back > 0) & (back <= 32)),
        ("repeat repeat-128", (back > 32) & (back <= 128)),
        ("repeat repeat-far", back > 128),
        ("repeat-none", back == 0),
    ]


def parse(
    sequences: Sequence[Values], arms: Sequence[Values], patch: Patch
) -> tuple[list[TokenSequence], list[Arm], PatchSettings]:
    """Sequences, arms and patch from the parameters of a unit."""
    texts = [from_values(TokenSequence, values) for values in sequences]
    made = patch if isinstance(patch, PatchSettings) else from_values(PatchSettings, patch)
    return texts, [from_values(Arm, values) for values in arms], made


def _tokens(texts: Sequence[TokenSequence]) -> list[tuple[int, ...]]:
    return [text.tokens for text in texts]


def numbers(texts: Sequence[TokenSequence]) -> list[int]:
    """Seeds of the random draws, one a text."""
    return [text.number for text in texts]


def rows_of(
    texts: Sequence[TokenSequence],
    arms: Sequence[Arm],
    measure: str,
    categories: Sequence[str],
    totals: Tensor,
    counts: Sequence[float] | np.ndarray,
) -> list[Row]:
    """One row for each arm and text; `totals` is `[arm, text]`, `counts` `[text]`."""
    return [
        (
            text.half,
            text.number,
            text.cluster,
            text.crossed,
            *of_arm,
            measure,
            category,
            float(total),
            int(count),
        )
        for of_arm, totals_of_arm in zip(map(_ARM_VALUES, arms), totals.tolist(), strict=True)
        for text, category, total, count in zip(
            texts, categories, totals_of_arm, counts, strict=True
        )
    ]


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """The rows of a unit, together: a table takes milliseconds, however few rows it has."""
    return pd.DataFrame(list(rows), columns=ROW_COLUMNS)
