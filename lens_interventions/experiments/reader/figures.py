"""Figures of the reader experiment, from its tables."""

from ...drawing.table_curves import Axes, curves
from ..engine.results import Figures, Tables
from .measurements import AS_TRAINED, UNTRAINED
from .settings import ALONE

_NAMES = {ALONE: "no write", UNTRAINED: "the model as it is"}


def draw(tables: Tables) -> Figures:
    """What the true token gains over each control by kind of text, and losses on the way."""
    named = {
        name: tables[name].assign(reader=tables[name][column].replace(_NAMES))
        for name, column in (("contrasts", "minus"), ("curves", "source"))
    }
    rows = named["contrasts"]
    as_trained = rows["condition"] == AS_TRAINED
    return {
        "gain": curves(
            {"": rows[as_trained & (rows["minus"] != UNTRAINED)]},
            Axes("scope", "estimate", "reader", "tokens", "true − other, nats a token"),
            title="A reader trained with the true token minus readers trained with others",
        ),
        "curves": curves(
            {"": named["curves"]},
            Axes("step", "loss", "reader", "steps", "loss, nats a token"),
            title="Held-out loss while readers adapt, by what is written (band: seeds)",
        ),
    }
