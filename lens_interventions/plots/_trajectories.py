"""Figures of a lens's reading of one prompt, or of two readings of the same prompt."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..drawing.theme import ThemeName
from ..lens.figures.position import draw_position
from ..lens.figures.side_by_side import draw_side_by_side
from ..lens.statistics import STATISTICS
from ..lens.trajectory import Trajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go

_OF_A_POSITION = ("final_rank", "input_rank", "next_rank", "kl_final", "kl_input", "entropy")


def plot_position(
    trajectory: Trajectory,
    position: int = -1,
    statistics: Sequence[str] | None = None,
    *,
    batch: int = 0,
    include_input: bool = False,
    title: str | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Statistics of one position over the layers, as lines.

    Ranks are zero-based, on a logarithmic axis with rank 0, the top guess, at the top.

    **Arguments:**

    - `trajectory`: a result of `logit_lens`.
    - `position`: a column of the prompt; negative numbers count from its end.
    - `statistics`: one or more names as for `Trajectory.plot`; `watched_rank` and
        `watched_log_prob` give a line for each watched token. By default these are the ranks of the
        final guess, the input, the next token if there is one and the watched tokens; the
        divergences to the final point and to the input; and the entropy.
    - `batch`: which prompt.
    - `include_input`: begin at the input, whose divergences dwarf the rest.
    - `title`, `theme`: as in `Trajectory.plot`.

    Raises `ValueError` if the trajectory does not have a statistic, `IndexError` if it does not
    have the position.
    """
    if not isinstance(trajectory, Trajectory):
        raise TypeError(
            f"plot_position takes one trajectory, got a {type(trajectory).__name__}: two stand "
            "beside each other in plot_side_by_side"
        )
    grid = partial(trajectory.grid, batch=batch, every=1, include_input=include_input)
    labels = grid("top1")
    width = len(labels.inputs)
    if not -width <= position < width:
        raise IndexError(f"position {position} is out of range for {width} columns")
    if statistics is None:
        has_next = bool(labels.outputs[position])
        statistics = [name for name in _OF_A_POSITION if name != "next_rank" or has_next]
        statistics += ["watched_rank"] if trajectory.watched else []
    if isinstance(statistics, str):
        statistics = [statistics]
    lines: list[tuple[str, int | None]] = []
    for name in statistics:
        per_token = name in STATISTICS and STATISTICS[name].target == "watched"
        tokens = trajectory.watched if per_token else ()
        lines += [(name, token) for token in tokens] or [(name, None)]
    grids = [grid(name, token=token) for name, token in lines]
    return draw_position(grids, position % width, title=title, theme=theme)


def plot_side_by_side(
    first: Trajectory,
    second: Trajectory,
    statistic: str = "kl_final",
    *,
    names: tuple[str, str] | None = None,
    batch: int = 0,
    every: int | None = None,
    include_input: bool | None = None,
    token: str | int | None = None,
    title: str | None = None,
    theme: ThemeName = "light",
    cell_width: float | None = None,
) -> "go.Figure":
    """A statistic of two trajectories on one colour scale, and second minus first.

    With up to 12 tokens the three panels are beside each other, with more tokens one above the
    other. Ranks are compared on their logarithmic scale: a change of `×10` means that 1 + rank is
    ten times larger. In the difference, a cell shows the second trajectory's top guess if it
    differs from that of the first. Statistics about the final guess or the output, such as
    `kl_final`, hold each trajectory against its own output: they may differ in any layer, also
    below a patch. To see where two runs part, choose another, such as `next_log_prob`.

    **Arguments:**

    - `statistic`, `batch`, `every`, `include_input`, `token`, `title`, `theme`, `cell_width`: as in
        `Trajectory.plot`.
    - `names`: the names of the two in the figure; by default their lenses, models or norms, if
        they differ in these by name; "first" and "second" for an `Alignment` of different texts;
        and otherwise "clean" and "patched".

    Raises `ValueError` if their tokens or points differ.
    """
    grids = [
        trajectory.grid(
            statistic, batch=batch, every=every, include_input=include_input, token=token
        )
        for trajectory in (first, second)
    ]
    return draw_side_by_side(
        *grids,
        names=names or _names(first, second),
        title=title,
        theme=theme,
        cell_width=cell_width,
    )


def _names(first: Trajectory, second: Trajectory) -> tuple[str, str]:
    """What two trajectories are called, by what tells them apart."""
    for setting in ("lens", "model", "norm"):
        one, other = (str(side.settings.get(setting)) for side in (first, second))
        if one != other:
            return one, other
    # The sides of an alignment have made-up ids where tokens differ, or columns of other positions.
    if (first.tokens[first.mask] < 0).any() or not torch.equal(first.positions, second.positions):
        return "first", "second"
    return "clean", "patched"
