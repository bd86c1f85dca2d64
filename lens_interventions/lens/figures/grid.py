"""One statistic of one prompt as rows of layers and columns of tokens: the numbers and labels.

Other modules draw it, as a figure or as a table in the terminal.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from ...drawing.labels import visible
from ...model.argument_types import require_counts_or_none
from ...model.points import FINAL, INPUT, point_name
from ..statistics import STATISTICS, Statistic, drawn, related

_MAX_ROWS = 32


@dataclass(frozen=True)
class Line:
    """A number that appears over each cell, under its label; of a rank also the log-probability."""

    label: str
    values: Float[np.ndarray, "row column"]
    log_probs: Float[np.ndarray, "row column"] | None = None


@dataclass(frozen=True)
class Grid:
    """A statistic's values, with the labels that go with rows and columns.

    Attributes:
        statistic: the statistic, with its unit and colours.
        title: its title, with the point that it compares with and the watched token filled in.
        values: `[row, column]`, NaN where there is none. Rows go from the first point to the last.
        likeliest: `[row][column][k]`, the point's likeliest tokens, with visible white space.
        log_probs: `[row, column, k]`, the log-probabilities of these tokens in nats.
        agrees: `[row, column]`, whether the final guess is the likeliest token, or ties with it.
        lines: the other statistics of the cells, in the order in which they are listed.
        points: labels of the rows' points.
        positions: the position of each column in the text.
        tokens: the id of the token at each column.
        inputs: the text of that token.
        outputs: the text of the token that followed; empty if there is none.
        correct: whether the token that followed was the model's own top guess, or tied with it;
            False if the final point was not read.
    """

    statistic: Statistic
    title: str
    values: Float[np.ndarray, "row column"]
    likeliest: tuple[tuple[tuple[str, ...], ...], ...]
    log_probs: Float[np.ndarray, "row column k"]
    agrees: Bool[np.ndarray, "row column"]
    lines: tuple[Line, ...]
    points: tuple[str, ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    correct: Bool[np.ndarray, " column"]

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of points in figures: `input`, `1`, `3 mid`, `final`."""
        return tuple(map(point_name, self.points))

    @property
    def guesses(self) -> tuple[tuple[str, ...], ...]:
        """`[row][column]`, the point's top guess."""
        return tuple(tuple(texts[0] for texts in row) for row in self.likeliest)

    @property
    def colour_range(self) -> Float[np.ndarray, "*cell"]:
        """The values that an open colour scale spans: all except the input's, which are larger."""
        rest = [i for i, point in enumerate(self.points) if point != INPUT]
        return self.values[rest] if rest else self.values


def make_grid(
    statistic: str,
    tensors: Mapping[str, Tensor],
    *,
    points: tuple[str, ...],
    vocab: Mapping[int, str],
    watched: tuple[int, ...],
    compare_with: str,
    every: int | None,
    include_input: bool | None,
    token: str | int | None,
) -> Grid:
    """One statistic of one prompt, ready to be drawn.

    **Arguments:**

    - `statistic`: a statistic of `lens.statistics` that has a figure.
    - `tensors`: the prompt's tokens, `[1, pos]`, and all statistics, `[point, 1, pos]` and
        `[point, 1, pos, ...]`, by the names of `Trajectory`. No padding.
    - `points`, `vocab`, `watched`, `compare_with`: those of the trajectory.
    - `every`: keep every n-th layer with all its points, and always the last one; None for the n
        that keeps about 32 rows.
    - `include_input`: whether to show the input's row; None for the statistic's default.
    - `token`: which watched token, as id or text; None for the first.

    Raises `ValueError` if the statistic has no figure or was not computed, if `every` is below 1,
    if the token was not watched, or if the prompt has no position.
    """
    if statistic not in drawn():
        raise ValueError(
            f"there is no figure of {statistic!r}; there are {list(drawn())} (top_ids and "
            "top_logits are shown by top1)"
        )
    chosen = STATISTICS[statistic]
    if not tensors["tokens"].numel():
        raise ValueError("there is no position to show: the range of positions holds no token")
    if token is not None and chosen.target != "watched":
        raise ValueError(f"token= goes with watched_rank and watched_log_prob, not {statistic}")
    if include_input is None:
        include_input = chosen.show_input
    rows = _select_rows(points, every, include_input)
    numbers = {
        name: cells(values[rows, 0]) for name, values in tensors.items() if name in STATISTICS
    }
    numbers["top1"] = numbers["top_logits"][..., 0]
    if statistic not in numbers:
        raise ValueError(chosen.how_to_ask)
    texts = {id_: visible(text) for id_, text in vocab.items()}
    watched_texts = watched_names(watched, texts)
    names = {"compare": point_name(compare_with)}
    values = numbers[statistic]
    if chosen.target == "watched":
        index = _watched_index(watched, vocab, token)
        names["token"] = watched_texts[index]
        values = values[..., index]
    shown = tuple(points[row] for row in rows)
    inputs, following = (tensors[name][0].tolist() for name in ("tokens", "next_tokens"))
    right = numbers["next_rank"][-1] == 0 if FINAL in shown else np.zeros(len(inputs), bool)
    return Grid(
        statistic=chosen,
        title=chosen.title.format(**names),
        values=values,
        likeliest=tuple(
            tuple(tuple(texts[guess] for guess in ids) for ids in row)
            for row in tensors["top_ids"][rows, 0].tolist()
        ),
        log_probs=numbers["top_logits"] - numbers["log_normalizer"][..., None],
        agrees=numbers["final_rank"] == 0,
        lines=tuple(_lines(chosen, numbers, compare_with, watched_texts)),
        points=shown,
        positions=tuple(tensors["positions"][0].tolist()),
        tokens=tuple(inputs),
        inputs=tuple(texts[id_] for id_ in inputs),
        outputs=tuple("" if id_ < 0 else texts[id_] for id_ in following),
        correct=right,
    )


def watched_names(watched: Sequence[int], vocab: Mapping[int, str]) -> list[str]:
    """The texts of watched tokens, with the id where another one has the same text.

    All pieces of a character read as the same replacement character.
    """
    texts = [vocab[token] for token in set(watched)]  # one that is watched twice has one name
    names = ((vocab[token], token) for token in watched)
    return [text if texts.count(text) == 1 else f"{text} {token}" for text, token in names]


def cells(values: Tensor) -> np.ndarray:
    """A statistic as float64, NaN where it has no value."""
    array = values.double().numpy()
    return array if values.is_floating_point() else np.where(array < 0, np.nan, array)


def _select_rows(points: tuple[str, ...], every: int | None, include_input: bool) -> list[int]:
    require_counts_or_none(every=every)
    rows = [i for i, point in enumerate(points) if point != INPUT]
    # The input is not a layer: the same layers are shown with it and without it.
    every = every or max(1, math.ceil(len(rows) / _MAX_ROWS))
    layer_of = {row: points[row].split("_")[0] for row in rows}
    layers = list(dict.fromkeys(layer_of.values()))
    kept = {*layers[::every], *layers[-1:]}
    shown = [row for row in rows if layer_of[row] in kept]
    if INPUT in points and (include_input or not rows):
        shown.append(points.index(INPUT))
    return sorted(shown)


def _watched_index(
    watched: tuple[int, ...], vocab: Mapping[int, str], token: str | int | None
) -> int:
    if token is None:
        return 0
    names = watched_names(watched, vocab)
    for index, (id_, name) in enumerate(zip(watched, names, strict=True)):
        if token in (id_, name):
            return index
    if token in [vocab[id_] for id_ in watched]:
        raise ValueError(f"several watched tokens read {token!r}: choose one of {names}")
    raise ValueError(f"{token!r} was not watched; watched tokens are {names}")


def _lines(
    chosen: Statistic,
    numbers: Mapping[str, np.ndarray],
    compare_with: str,
    watched: list[str],
) -> Iterator[Line]:
    """The chosen statistic among all that have a label over a cell."""
    for name, statistic in STATISTICS.items():
        repeated = statistic.target == "compare" and compare_with == FINAL
        on_hover = statistic.hover or (statistic is chosen and statistic.kind != "log_prob")
        if name not in numbers or repeated or not on_hover:
            continue
        label = statistic.hover or statistic.title
        values, log_probs = numbers[name], None
        if statistic.kind == "rank":
            log_probs = numbers[related("log_prob", statistic.target).name]
        if statistic.target != "watched":
            yield Line(label.format(compare=point_name(compare_with)), values, log_probs)
            continue
        assert log_probs is not None
        for index, text in enumerate(watched):
            yield Line(label.format(token=text), values[..., index], log_probs[..., index])
