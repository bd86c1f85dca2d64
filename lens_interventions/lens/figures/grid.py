"""One statistic of one prompt as rows of layers and columns of tokens: the numbers and labels.

What is drawn from it (a figure, a table in the terminal) is decided elsewhere.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from ...drawing.labels import visible
from ...model.points import FINAL, INPUT, point_name
from ..trajectory import Trajectory, statistic_names
from .scales import SCALES, Scale

_MAX_ROWS = 32


@dataclass(frozen=True)
class Grid:
    """A statistic's values, with the labels that go with rows and columns.

    Attributes:
        name: of the statistic.
        title: what the statistic is.
        scale: its unit and colours.
        values: `[row, column]`, NaN where there is none. Rows go from the first point to the last.
        guesses: `[row][column]`, the point's top guess with white space visible.
        agrees: `[row, column]`, whether that guess is also the final one.
        rows: what a reader calls each point: `input`, `1`, `3 mid`, `final`.
        inputs: text of the token at each column.
        outputs: text of the token that followed, empty where there is none.
        correct: whether the model's own top guess was the token that followed.
        trajectory: the prompt and points that the grid shows.
    """

    name: str
    title: str
    scale: Scale
    values: Float[np.ndarray, "row column"]
    guesses: tuple[tuple[str, ...], ...]
    agrees: Bool[np.ndarray, "row column"]
    rows: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    correct: Bool[np.ndarray, " column"]
    trajectory: Trajectory

    @property
    def colour_range(self) -> Float[np.ndarray, "*cell"]:
        """The values that an open colour scale spans: all but the input's, which dwarf the rest."""
        rest = [i for i, row in enumerate(self.rows) if row != "input"]
        return self.values[rest] if rest else self.values


def make_grid(
    trajectory: Trajectory,
    statistic: str,
    *,
    batch: int = 0,
    every: int | None = None,
    include_input: bool | None = None,
    token: str | int | None = None,
) -> Grid:
    """One statistic of one prompt, ready to be drawn.

    **Arguments:**

    - `statistic`: `"top1"` or any of `Trajectory`'s with one value per cell, or one per watched
        token.
    - `batch`: which prompt.
    - `every`: keep every n-th layer, and always the last; by default as many as make at most 32.
    - `include_input`: whether to show the input's row; by default where the statistic says so.
    - `token`: which watched token, as id or text; the first by default.

    Raises `ValueError` for what the trajectory does not have.
    """
    prompts = len(trajectory.tokens)
    if not -prompts <= batch < prompts:
        raise ValueError(f"batch {batch} does not exist: the trajectory has {prompts} prompt(s)")
    rows = _select_rows(trajectory.points, statistic, every, include_input)
    shown = _at_rows(trajectory.prompt(batch), rows)
    watched = None
    if token is not None and not statistic.startswith("watched"):
        raise ValueError(f"token= goes with watched_rank and watched_log_prob, not {statistic}")
    values = _values(shown, statistic)
    if values.ndim == 3:
        watched = _watched_index(shown, token)
        values = values[..., watched]
    names = {
        "compare": point_name(shown.compare_with),
        "token": "" if watched is None else _text(shown, shown.watched[watched]),
    }
    final = shown.points.index(FINAL) if FINAL in shown.points else None
    following = shown.next_tokens[0].tolist()
    return Grid(
        name=statistic,
        title=SCALES[statistic].title.format(**names),
        scale=SCALES[statistic],
        values=values,
        guesses=tuple(
            tuple(_text(shown, guess) for guess in row)
            for row in shown.top_ids[:, 0, :, 0].tolist()
        ),
        agrees=shown.agrees_final[:, 0].numpy(),
        rows=tuple(point_name(point) for point in shown.points),
        inputs=tuple(_text(shown, token) for token in shown.tokens[0].tolist()),
        outputs=tuple("" if token < 0 else _text(shown, token) for token in following),
        correct=np.zeros(len(following), bool)
        if final is None
        else shown.agrees_next[final, 0].numpy(),
        trajectory=shown,
    )


def cells(values: Tensor) -> np.ndarray:
    """A statistic as float64, NaN where it has no value."""
    array = values.double().numpy()
    return array if values.is_floating_point() else np.where(array < 0, np.nan, array)


def _text(trajectory: Trajectory, token: int) -> str:
    return visible(trajectory.vocab[token])


def _select_rows(
    points: tuple[str, ...], statistic: str, every: int | None, include_input: bool | None
) -> list[int]:
    if statistic not in SCALES:
        others = sorted(set(statistic_names()) - set(SCALES))
        raise ValueError(
            f"there is no figure of {statistic!r}; there are {list(SCALES)} "
            f"({', '.join(others)} are shown by top1)"
        )
    if every is not None and every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if include_input is None:
        include_input = SCALES[statistic].show_input
    rows = [i for i, point in enumerate(points) if point != INPUT]
    # The input is no layer: with or without it the same layers are shown.
    every = every or max(1, math.ceil(len(rows) / _MAX_ROWS))
    shown = {*rows[::every], *rows[-1:]}
    if INPUT in points and (include_input or not rows):
        shown.add(points.index(INPUT))
    return sorted(shown)


def _at_rows(trajectory: Trajectory, rows: list[int]) -> Trajectory:
    names = statistic_names()
    cut: dict[str, Any] = {
        name: value[rows] for name, value in trajectory.tensors().items() if name in names
    }
    return replace(trajectory, points=tuple(trajectory.points[row] for row in rows), **cut)


def _values(trajectory: Trajectory, statistic: str) -> np.ndarray:
    tensor = (
        trajectory.top_logits[..., 0] if statistic == "top1" else trajectory.statistic(statistic)
    )
    return cells(tensor[:, 0])


def _watched_index(trajectory: Trajectory, token: str | int | None) -> int:
    if token is None:
        return 0
    for index, watched in enumerate(trajectory.watched):
        if token in (watched, trajectory.vocab[watched]):
            return index
    names = [trajectory.vocab[watched] for watched in trajectory.watched]
    raise ValueError(f"{token!r} was not watched; watched tokens are {names}")
