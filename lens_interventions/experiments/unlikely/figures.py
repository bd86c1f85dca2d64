"""Figures of the experiment on unlikely tokens, from its tables."""

from ...drawing.table_curves import Axes, curves
from ...lens.figures.over_layers import AXIS
from ...lens.unlikely_tokens import MEASURES
from ...model.points import INPUT, point_name
from ..engine.results import Figures, Tables
from .ablation import NOTHING


def draw(tables: Tables) -> Figures:
    """Size by point, what is left at the output, and the loss with directions taken out."""
    table = tables["components"].assign(place=tables["components"]["point"].map(point_name))
    # At the input, along tokens like it, sizes are ten times those of all other points.
    table = table[table["point"] != INPUT]
    size, left = (table[table["statistic"] == statistic] for statistic in MEASURES)
    ablation = tables["ablation"]
    against = ablation[(ablation["minus"] == NOTHING) & ablation["layer"].str.isdigit()]
    return {
        "size": curves(
            {"": size},
            Axes("place", "estimate", "group", AXIS, "size (1: any direction)"),
            title="How much of the residual stream lies along a direction",
        ),
        "left": curves(
            {"": left},
            Axes("place", "estimate", "group", AXIS, "left at the output"),
            title="How much of a component arrives at the output",
        ),
        "ablation": curves(
            {"": against},
            Axes("layer", "estimate", "taken_out", "layer", "change of the loss, nats a token"),
            title="The loss with directions taken out of one layer",
        ),
    }
