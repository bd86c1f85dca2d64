"""Figures of the increment experiment, from its tables."""

from ...drawing.table_curves import Axes, curves
from ..design.trained_patches.figures import draw_gain
from ..design.trained_patches.losses import UNTRAINED
from ..engine.results import Figures, Tables
from .measurements import BASE

_NAMES = {BASE: "the base alone"}


def draw(tables: Tables) -> Figures:
    """What the next token adds by kind of text, losses of increments, and those of the base."""
    table = tables["contrasts"]
    base = tables["base"]
    tried = base["training"] + ", learning rate " + base["rate"].map("{:g}".format)
    return {
        "gain": draw_gain(
            table[(table["minus"] != UNTRAINED) & (table["source"] == "true")],
            _NAMES,
            "The increment of the true next token, minus others",
        ),
        "curves": curves(
            {"": tables["curves"]},
            Axes("step", "loss", "source", "steps", "loss, nats a token"),
            title="Held-out loss of increments, by what is written (band: seeds)",
        ),
        "base": curves(
            {"": base.assign(tried=tried)},
            Axes("step", "loss", "tried", "steps", "loss, nats a token"),
            title="Held-out loss of the base, and of trials of learning rates",
        ),
    }
