"""What tests of figures read from figures, and trajectories to draw."""

import math
from dataclasses import replace

import numpy as np
import plotly.colors
import plotly.graph_objects as go
import torch

from lens_interventions.lens.logit_lens import logit_lens
from tests.support.tiny import shared_bridge

# "people say" occurs three times, so that input tokens repeat.
TEXTS = ["people say people say:\n people say", "the fox"]


def heat(figure):
    return next(trace for trace in figure.data if isinstance(trace, go.Heatmap))


def numbers(rows):
    return np.array([[math.nan if z is None else z for z in row] for row in rows])


def position(name, values):
    """Where a statistic stands on its colour axis, from its definition."""
    values = values.double().numpy()
    if name.endswith("_rank"):
        return np.log10(1 + np.where(values < 0, np.nan, values))
    return values


def outlined_cells(figure):
    cells = set()
    for trace in figure.data:
        if trace.name == "outline":
            corners = [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
            cells |= {(round(y), round(x)) for x, y in corners}
    return cells


def texts_by_cell(figure):
    return {
        (row, column): (text, trace.textfont.color)
        for trace in figure.data
        if trace.name == "guesses"
        for row, column, text in zip(trace.y, trace.x, trace.text, strict=True)
    }


def plotly_colour(scale, place):
    """The colour that plotly's own interpolation gives, as red, green, blue of 255."""
    colours = [plotly.colors.label_rgb(plotly.colors.hex_to_rgb(stop)) for _, stop in scale]
    (sample,) = plotly.colors.sample_colorscale(colours, [place])
    return plotly.colors.unlabel_rgb(sample)


def contrast(rgb, ink):
    """Contrast ratio of WCAG 2.2, from its definition."""

    def luminance(colour):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    other = [int(ink[i : i + 2], 16) for i in (1, 3, 5)]
    lighter, darker = sorted([luminance(rgb), luminance(other)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def deep_trajectory(*, points, columns):
    """Random statistics of so many points and columns."""
    read = logit_lens(shared_bridge("llama"), "the fox")
    generator = torch.Generator().manual_seed(0)
    labels = [f"{point}_pre" for point in range(points - 1)] + ["final_post"]
    vocab = {token: f" token{token}" for token in range(112)}

    def draw(name, value):
        shape = (points, 1, columns, *value.shape[3:])
        if value.ndim == 2:
            shape = (1, columns)
        if value.dtype == torch.bool:
            return torch.ones(shape, dtype=torch.bool)
        if value.dtype.is_floating_point:
            return 20 * torch.rand(shape, generator=generator, dtype=value.dtype)
        return torch.randint(112, shape, generator=generator)

    drawn = {name: draw(name, value) for name, value in read.tensors().items()}
    return replace(read, points=tuple(labels), vocab=vocab, **drawn)
