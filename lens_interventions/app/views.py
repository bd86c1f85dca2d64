"""Parts that views share: figures and tokens as JSON values."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..drawing.colours import DARK_INK, LIGHT_INK, ColourScale, prefers_dark_ink
from ..drawing.labels import rounded, visible
from ..lens.commitment import CRITERIA, Commitment
from ..lens.trajectory import Trajectory
from ..pages.rendering import plain_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


def figure_values(figure: "go.Figure") -> dict[str, Any]:
    """A figure as JSON values, without its template: the page chooses light or dark."""
    values = plain_figure(figure)
    del values["layout"]["template"]
    return values


def commitment(trajectory: Trajectory, name: str) -> Commitment:
    """The commitment of a trajectory by its name in the state.

    Raises `ValueError` for a name that does not exist.
    """
    if name not in CRITERIA:
        raise ValueError(f"commitment must be one of {', '.join(CRITERIA)}; got {name!r}")
    return trajectory.commitment(**CRITERIA[name])


def strip(trajectory: Trajectory, found: Commitment) -> list[dict[str, Any]]:
    """The tokens of a prompt, each with the point where its prediction settles, and its colour."""
    scale = ColourScale("viridis", 0.0, float(len(found.points) - 1))
    first = found.first[0].double().numpy()
    colours = scale.rgb(first)
    dark = prefers_dark_ink(colours)
    cells = zip(
        trajectory.positions[0].tolist(),
        trajectory.tokens[0].tolist(),
        found.guesses[0].tolist(),
        found.names(),
        colours.tolist(),
        dark.tolist(),
        strict=True,
    )
    return [
        {
            "position": position,
            "text": visible(trajectory.vocab[token]),
            "guess": visible(trajectory.vocab[guess]),
            "name": name,
            "colour": None if name is None else "#" + bytes(rgb).hex(),
            "ink": DARK_INK if ink else LIGHT_INK,
        }
        for position, token, guess, name, rgb, ink in cells
    ]


def likeliest(trajectory: Trajectory, row: int, column: int) -> list[dict[str, Any]]:
    """The top-k of one cell."""
    ids = trajectory.top_ids[row, 0, column].tolist()
    log_probs = trajectory.top_log_probs[row, 0, column].double().tolist()
    return [
        {
            "id": token,
            "text": visible(trajectory.vocab[token]),
            "log_prob": log_prob,
            "probability": float(np.exp(log_prob)),
        }
        for token, log_prob in zip(ids, log_probs, strict=True)
    ]


def cell_statistics(trajectory: Trajectory, row: int, column: int) -> list[dict[str, Any]]:
    """Every statistic of one cell, under its label in figures."""
    lines = trajectory.grid("top1", every=1, include_input=True).lines
    return [
        {
            "label": line.label,
            "value": rounded(float(line.values[row, column])),
            "log_prob": None
            if line.log_probs is None
            else rounded(float(line.log_probs[row, column])),
        }
        for line in lines
    ]
