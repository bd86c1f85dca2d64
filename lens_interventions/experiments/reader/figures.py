"""Figures of the reader experiment, from its tables."""

from ...drawing.table_curves import Axes, curves
from ..design.text_scopes import AS_TRAINED
from ..design.trained_patches.figures import draw_gain
from ..design.trained_patches.losses import UNTRAINED
from ..engine.results import Figures, Tables
from .settings import ALONE

_NAMES = {ALONE: "no token"}


def draw(tables: Tables) -> Figures:
    """What the true token gains over each control by kind of text, and losses during training."""
    rows = tables["curves"]
    table = tables["contrasts"]
    shown = table[(table["minus"] != UNTRAINED) & (table["condition"] == AS_TRAINED)]
    return {
        "gain": draw_gain(shown, _NAMES, "A reader with the true token, minus others"),
        "curves": curves(
            {"": rows.assign(reader=rows["source"].replace(_NAMES))},
            Axes("step", "loss", "reader", "steps", "loss, nats a token"),
            title="Held-out loss while readers adapt, by what is written (band: seeds)",
        ),
    }
