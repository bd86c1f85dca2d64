"""What appears over a cell: its likeliest tokens and every statistic that was computed.

The numbers travel once per cell, the words around them once per figure: a figure of 200 tokens and
31 layers stays about one megabyte.
"""

import itertools

import numpy as np

from ...drawing.labels import markup, rounded, shorten, visible
from ...model.points import FINAL, point_name
from .grid import Grid, cells
from .scales import SCALES

_TOKEN_WIDTH = 40


def hover_template(grid: Grid, *, header: str = "") -> str:
    """The text around the numbers of `hover_data`, in plotly's template language."""
    index = iter(range(10**6))

    def places(number: int, between: str) -> str:
        return between.join(f"%{{customdata[{next(index)}]}}" for _ in range(number))

    lines = [f"<b>{header}layer %{{y}}, position {places(1, '')} %{{x}}</b>"]
    lines.append("<br>top guesses (log-prob first)")
    lines += [places(2, " ") for _ in range(grid.trajectory.top_ids.shape[-1])]
    lines.append("")
    for label, *values in _statistics(grid):
        lines.append(f"{markup(label)}: {places(len(values), ', log-prob ')}")
    return "<br>".join(lines) + "<extra></extra>"


def hover_data(grid: Grid) -> list[list[list[float | str]]]:
    """`[row][column][item]`: position, likeliest tokens with their log-probs, every statistic."""
    trajectory = grid.trajectory
    texts = {
        token: markup(shorten(visible(trajectory.vocab[token]), _TOKEN_WIDTH))
        for token in trajectory.top_ids.unique().tolist()
    }
    statistics = [value for _, *values in _statistics(grid) for value in values]
    cell_values = (
        trajectory.top_ids[:, 0].tolist(),
        trajectory.top_log_probs[:, 0].tolist(),
        np.stack(statistics, axis=-1).tolist(),
    )
    data: list[list[list[float | str]]] = []
    for row in zip(*cell_values, strict=True):
        data.append([])
        columns = zip(trajectory.positions[0].tolist(), *row, strict=True)
        for position, ids, log_probs, values in columns:
            guesses = zip(map(rounded, log_probs), (texts[token] for token in ids), strict=True)
            data[-1].append([position, *itertools.chain(*guesses), *map(rounded, values)])
    return data


def _statistics(grid: Grid) -> list[tuple]:
    """Label and values of each line: the rank and log-prob of a token, or one other number."""
    trajectory = grid.trajectory
    held = trajectory.tensors()
    compared = trajectory.compare_with != FINAL
    point = point_name(trajectory.compare_with)
    targets = {"final": "final top guess", "input": "input token", "next": "next token"}
    if compared:
        targets["compare"] = f"top guess at {point}"
    lines: list[tuple] = [("logit of top guess", cells(trajectory.top_logits[:, 0, :, 0]))]
    for target, label in targets.items():
        pair = (cells(held[f"{target}_{kind}"][:, 0]) for kind in ("rank", "log_prob"))
        lines.append((f"rank of {label}", *pair))
    for index, token in enumerate(trajectory.watched):
        pair = (cells(held[f"watched_{kind}"][:, 0, :, index]) for kind in ("rank", "log_prob"))
        lines.append((f"rank of {visible(trajectory.vocab[token])}", *pair))
    lines.append(("entropy", cells(trajectory.entropy[:, 0])))
    for name, scale in SCALES.items():
        asked = name in held and name.startswith(("kl_", "js_"))
        if asked and (compared or "compare" not in name):
            lines.append((scale.title.format(compare=point), cells(held[name][:, 0])))
    if grid.name == "log_normalizer":
        lines.append((grid.title, grid.values))
    return lines
