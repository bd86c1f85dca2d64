"""Figures of the recall experiment, from its tables."""

from ...drawing.table_curves import Axes, curves
from ...fitting.input_reading import LABELS
from ...lens.figures.over_layers import AXIS
from ...model.points import point_name
from ..engine.results import Figures, Tables
from .stages import PARTS


def draw(tables: Tables) -> Figures:
    """How much of the input is recovered by depth, and through which half of each basis."""
    recovered = tables["recovered"].assign(place=tables["recovered"]["point"].map(point_name))
    is_all = recovered["part"] == "all"
    read = tables["read"].assign(
        place=tables["read"]["point"].map(point_name), curve=tables["read"]["measure"].map(LABELS)
    )
    half = read[read["part"] == PARTS[1]]
    return {
        "recovered": curves(
            {
                "all tokens": recovered[is_all].assign(part="all tokens"),
                "by how often the probe was fitted to the token": recovered[~is_all],
            },
            Axes("place", "estimate", "part", AXIS, "share of tokens recovered"),
            title="The input token, recovered from the residual stream",
        ),
        "read": curves(
            {f"components: {basis}": rows for basis, rows in half.groupby("basis", sort=False)},
            Axes("place", "estimate", "curve", AXIS, "share of the variance"),
            title="What lies along the less important half of a basis",
        ),
    }
