"""The panels Read, Patch and Compare, with a function for each, from a state to events."""

from typing import Any

import numpy as np

from .._progress import told_to
from ..drawing.labels import visible
from ..intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ..model.points import point_name
from ..model.vocabulary import token_strings
from ..plots import plot_position
from .chosen_patch import chosen_patch
from .heatmaps import HeatMap, heat_map
from .reading import Reading, read, read_position, watched
from .recipes import recipe
from .state import State
from .subject import Subject
from .views import cell_statistics, commitment, figure_values, likeliest, strip
from .worker import Emit, reports_to


def read_panel(subject: Subject, state: State, emit: Emit) -> None:
    """First the tokens; then the heat map, and where each prediction settles."""
    emit("tokens", {"texts": _texts(subject, subject.tokens(state))})
    emit("view", _view(subject, state, heat_map(subject, state, emit)))


def cell_panel(subject: Subject, state: State, emit: Emit) -> None:
    """One cell: first its likeliest tokens and statistics; then its position through the layers."""
    reading = read(subject, state, subject.tokens(state), emit)
    trajectory = reading.trajectory
    column = _column(reading, state)
    if state.point not in trajectory.points:
        raise ValueError(
            f"point {state.point!r} was not read; there are {', '.join(trajectory.points)}"
        )
    row = trajectory.points.index(state.point)
    emit(
        "cell",
        {
            "position": int(trajectory.positions[0, column]),
            "token": visible(trajectory.vocab[int(trajectory.tokens[0, column])]),
            "point": state.point,
            "points": [[point, point_name(point)] for point in trajectory.points],
            "likeliest": likeliest(trajectory, row, column),
            "statistics": cell_statistics(trajectory, row, column),
        },
    )
    watching = read_position(subject, state, reading, column)
    leaders = plot_position(
        watching,
        0,
        "watched_log_prob",
        include_input=True,
        title="Every token that leads at some layer",
    )
    ranks = plot_position(trajectory, column)
    emit("curves", {"leaders": figure_values(leaders), "statistics": figure_values(ranks)})


def patch_panel(subject: Subject, state: State, emit: Emit) -> None:
    """First clean and patched side by side; then the effect of the patch on each prediction."""
    tokens = subject.tokens(state)
    emit("tokens", {"texts": _texts(subject, tokens)})
    patch = chosen_patch(subject, state, reports_to(emit))
    if isinstance(patch.positions, tuple):
        first, last = min(patch.positions), len(tokens) - 1
        if first > last:
            raise ValueError(f"there is no position {first}: those of the text are 0 to {last}")
        if first == last:
            raise ValueError(
                "nothing is written at the last token, since its next token is not known: choose "
                "an earlier position"
            )
    shown = heat_map(subject, state, emit)
    guesses = {
        name: likeliest(trajectory, -1, -1)[:5] for name, trajectory in shown.trajectories.items()
    }
    emit("view", _view(subject, state, shown) | {"guesses": guesses})
    if len(tokens) < 2:
        return  # the last token predicts no known token
    with told_to(reports_to(emit)):
        log_probs = teacher_forced_log_probs(subject.bridge, [tokens], [None, patch])
    clean, patched = log_probs[:, 0].tolist()
    emit(
        "exact",
        {
            "texts": _texts(subject, tokens),
            "clean": clean,
            "patched": patched,
            "nats": [-float(np.mean(values)) for values in (clean, patched)],
        },
    )


def compare_panel(subject: Subject, state: State, emit: Emit) -> None:
    """Two prompts on one model, or one prompt on two, side by side where they are aligned."""
    emit("tokens", {"texts": _texts(subject, subject.tokens(state))})
    shown = heat_map(subject, state, emit)
    emit("view", _view(subject, state, shown) | {"left_out": shown.left_out})


def _view(subject: Subject, state: State, shown: HeatMap) -> dict[str, Any]:
    """The page's view of a heat map."""
    return {
        "figure": figure_values(shown.figure),
        "points": list(shown.points),
        "strip": strip(shown.prompt, commitment(shown.prompt, state.commitment)),
        "watched": _watched(subject, state),
        "recipe": recipe(subject, state),
    }


def _column(reading: Reading, state: State) -> int:
    """The column of the chosen position, the last one if none is chosen."""
    positions = reading.trajectory.positions[0].tolist()
    if state.position is None:
        return len(positions) - 1
    if state.position not in positions:
        raise ValueError(
            f"position {state.position} was not read; there are {positions[0]} to {positions[-1]}"
        )
    return positions.index(state.position)


def _texts(subject: Subject, tokens: list[int]) -> list[str]:
    texts = token_strings(subject.bridge, set(tokens))
    return [visible(texts[token]) for token in tokens]


def _watched(subject: Subject, state: State) -> list[dict[str, Any]]:
    ids = watched(subject, state)
    return [
        {"id": token, "text": text} for token, text in zip(ids, _texts(subject, ids), strict=True)
    ]
