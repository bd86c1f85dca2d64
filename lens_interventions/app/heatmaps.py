"""The heat map of a panel, with the trajectories that it shows, for the page and for saving."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .._files import csv_text
from ..drawing.cell_size import MOST_COLUMNS
from ..drawing.export import figure_page
from ..drawing.wrapped import LEFT, RIGHT
from ..lens.alignment import align
from ..lens.figures.side_by_side import BESIDE
from ..lens.statistics import STATISTICS
from ..lens.trajectory import Trajectory
from ..plots import plot_side_by_side
from .chosen_patch import chosen_patch
from .reading import read
from .state import State
from .subject import Subject
from .worker import Emit

if TYPE_CHECKING:
    import plotly.graph_objects as go


_NARROWEST, _WIDEST = 34.0, 64.0  # pixels of a cell; the narrowest that has text


@dataclass(frozen=True)
class HeatMap:
    """The heat map of a panel.

    Attributes:
        figure: one heat map, or two and their difference.
        trajectories: the trajectories in it, by name.
        prompt: the reading of the prompt without a patch.
        points: labels of its rows, from the bottom up.
        left_out: the text of the tokens without a partner, for two prompts; None for one prompt.
    """

    figure: "go.Figure"
    trajectories: Mapping[str, Trajectory]
    prompt: Trajectory
    points: tuple[str, ...]
    left_out: tuple[list[str], list[str]] | None = None


def heat_map(subject: Subject, state: State, emit: Emit) -> HeatMap:
    """The heat map of the panel that the state names.

    Raises `ValueError` if the panel has none.
    """
    if state.panel == "read":
        return _one(state, read(subject, state, subject.tokens(state), emit).trajectory)
    if state.panel == "patch":
        return _patched(subject, state, emit)
    if state.panel == "compare":
        return _compared(subject, state, emit)
    raise ValueError(f"the panel {state.panel!r} has no heat map")


def as_page(subject: Subject, state: State, emit: Emit) -> None:
    """The figure as a page that opens offline."""
    page = figure_page(heat_map(subject, state, emit).figure)
    emit("file", {"name": f"{state.panel}.html", "type": "text/html", "content": page})


def as_csv(subject: Subject, state: State, emit: Emit) -> None:
    """Every statistic of every cell, in rows; with two readings the first column names them."""
    import pandas

    trajectories = heat_map(subject, state, emit).trajectories
    frames = {name: trajectory.to_dataframe() for name, trajectory in trajectories.items()}
    if len(frames) == 1:
        (frame,) = frames.values()
    else:
        frame = pandas.concat(frames, names=["reading"]).reset_index(level=0)
    content = csv_text(frame)
    emit("file", {"name": f"{state.panel}.csv", "type": "text/csv", "content": content})


def _one(state: State, trajectory: Trajectory) -> HeatMap:
    options = _options(state, trajectory)
    return HeatMap(
        trajectory.plot(
            state.statistic, cell_width=_cell_width(state, trajectory.tokens.shape[1]), **options
        ),
        {"": trajectory},
        trajectory,
        trajectory.grid(state.statistic, **options).points,
    )


def _patched(subject: Subject, state: State, emit: Emit) -> HeatMap:
    tokens, patch = subject.tokens(state), chosen_patch(subject, state)
    patch.bind(subject.bridge)  # refuses a patch that does not fit the model, before the model runs
    clean = read(subject, state, tokens, emit).trajectory
    patched = read(subject, state, tokens, emit, patch=patch).trajectory
    return _two(state, {"clean": clean, "patched": patched})


def _compared(subject: Subject, state: State, emit: Emit) -> HeatMap:
    tokens = subject.tokens(state)
    first = read(subject, state, tokens, emit).trajectory
    if state.other_text:
        others = subject.tokens(state, state.other_text)
        second = read(subject, state, others, emit).trajectory
    elif subject.other is not None:
        second = read(subject, state, tokens, emit, second=True).trajectory
    else:
        raise ValueError("give a second prompt, or start the explorer with a second model")
    pair, names = align(first, second), subject.compared_names(state)
    shown = _two(state, dict(zip(names, (pair.first, pair.second), strict=True)))
    return replace(shown, prompt=first, left_out=pair.left_out)


def _two(state: State, trajectories: Mapping[str, Trajectory]) -> HeatMap:
    (name, first), (other_name, second) = trajectories.items()
    options = _options(state, first)
    columns = first.tokens.shape[1]
    figure = plot_side_by_side(
        first,
        second,
        state.statistic,
        names=(name, other_name),
        cell_width=_cell_width(state, columns, panels=3 if columns <= BESIDE else 1),
        **options,
    )
    return HeatMap(figure, trajectories, first, first.grid(state.statistic, **options).points)


def _cell_width(state: State, columns: int, *, panels: int = 1) -> float | None:
    """The cell width at which panels beside each other fill the page, or the narrowest with text.

    None if the figure should choose: the page's width is unknown, or the text is too long for it.
    """
    if state.width is None:
        return None
    # The last of three panels has its own colour bar.
    room = state.width - panels * LEFT - (1 if panels == 1 else 2) * RIGHT
    width = room / (panels * columns)
    if width < _NARROWEST and columns > MOST_COLUMNS:
        return None
    return min(max(width, _NARROWEST), _WIDEST)


def _options(state: State, trajectory: Trajectory) -> dict[str, Any]:
    of_watched = STATISTICS[state.statistic].target == "watched"
    return {
        "every": state.every,
        "include_input": state.include_input,
        "token": trajectory.watched[-1] if of_watched else None,
    }
