"""Figures of the scratch experiment, from its tables."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.error_bars import draw_contrasts, interval_hover
from ...drawing.grouped_points import grouped_points
from ...drawing.table_curves import Axes, curves
from ..design.conditions import LONGER, source_words
from ..design.text_scopes import ALL, COPYABLE, SECOND
from ..engine.results import Figures, Tables
from .arms import NONE, name_of
from .decoding import DECODED
from .evaluation import PREFIX_MATCHING

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHOWN = (COPYABLE, ALL, SECOND)


def draw(tables: Tables) -> Figures:
    """Gain against depth, losses during training, heads that match, knockouts, free decoding."""
    shares = tables["contrasts"][tables["contrasts"]["scope"].isin(DECODED)]
    return {
        "gain": _gain(tables["gains"]),
        "curves": _curves(tables["curves"]),
        "heads": _heads(tables["heads"]),
        # Runs of before the knockouts have no such table.
        **({"knockouts": _knockouts(tables["knockouts"])} if "knockouts" in tables else {}),
        **({} if shares.empty else {"decoding": _decoding(shares)}),
    }


def _gain(gains: pd.DataFrame) -> "go.Figure":
    views = {}
    for scope in _SHOWN:
        here = gains[gains["scope"] == scope]
        named = here.assign(
            depth=_places(here), length="after " + here["steps"].map("{:,}".format) + " steps"
        )
        views[SECOND if scope == SECOND else f"{scope} tokens"] = named.assign(
            hover=[
                interval_hover(f"{row['depth']}, {row['length']}", row)
                for row in named.to_dict("records")
            ]
        )
    y, y_title = "estimate", "true − no write, nats a token"
    title = "Change of the loss by growing up with the true token"
    subtitle = (
        "Below 0: better than no write at equal steps. On the windows of the curves, which are "
        "some of those of the verdicts."
    )
    if gains["network"].nunique() == 1:  # One network alone has no depth to be drawn over.
        # Whether the gain goes to nothing is the question.
        to_zero = {"rangemode": "tozero"}
        axes = Axes("steps", y, "network", "steps of training", y_title, to_zero)
        return curves(views, axes, title=title, subtitle=subtitle)
    axes = Axes("depth", y, "length", "blocks / the one that is written to", y_title)
    return grouped_points(views, axes, title=title, subtitle=subtitle)


def _curves(rows: pd.DataFrame) -> "go.Figure":
    rows = rows.assign(arm=_arms(rows)).rename(columns={"lowest": "low", "highest": "high"})
    views = {
        f"{network}: {scope}": rows[(rows["network"] == network) & (rows["scope"] == scope)]
        for network in dict.fromkeys(rows["network"])
        for scope in _SHOWN
    }
    return curves(
        views,
        Axes("step", "loss", "arm", "steps", "loss, nats a token"),
        title="Held-out loss while the networks are trained, by arm (band: seeds)",
    )


def _heads(rows: pd.DataFrame) -> "go.Figure":
    views = {}
    networks: Any = rows.groupby(["blocks", "entry"], sort=False)
    for (blocks, entry), here in networks:
        named = here.assign(curve=_arms(here) + ": " + here["score"])
        first = named["score"] == PREFIX_MATCHING
        views[name_of(blocks, entry)] = pd.concat([named[first], named[~first]])
    return curves(
        views,
        Axes("step", "best", "curve", "steps", "attention of the best head"),
        title="When a head learns to match: attention from second copies to the first",
    )


def _knockouts(rises: pd.DataFrame) -> "go.Figure":
    here = rises[rises["scope"] == COPYABLE]
    kept_out = here["path"].str.replace("and", "or")
    return draw_contrasts(
        here,
        labels=(_places(here) + ", " + _arms(here) + ": no " + kept_out).tolist(),
        title="What it costs to keep the write out of all keys, values or both",
        x_title="rise of the loss on copyable tokens, nats a token",
    )


def _decoding(shares: pd.DataFrame) -> "go.Figure":
    compared = _arms(shares) + " − " + _arms(shares, "minus")
    return draw_contrasts(
        shares,
        labels=(shares["scope"] + ", " + _places(shares) + ": " + compared).tolist(),
        title="Greedy continuations at the end of training, blocks / the one written to",
        x_title="difference of the shares",
    )


def _arms(rows: pd.DataFrame, column: str = "arm") -> pd.Series:
    """What the arms write, in words."""
    unwritten = {NONE: "no write", LONGER: "no write, for longer"}
    names = rows[column].unique().tolist()
    return rows[column].replace({n: unwritten.get(n) or source_words(n) for n in names})


def _places(rows: pd.DataFrame) -> pd.Series:
    """The networks, as blocks / the one that is written to."""
    return rows["network"].str.replace(", written to at block ", " / ")
