"""Figures of the loops experiment, from its tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.colours import EITHER_INK, LINES
from ...drawing.effect_grid import effect_heatmaps
from ...drawing.error_bars import error_bars
from ...drawing.menu import add_menu
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ...lens.figures.over_layers import AXIS
from ...measures.behaviour.loops import MIN_ROUNDS
from ...model.points import point_name
from ..design.sequences import REPORT
from ..engine.results import Figures, Tables

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "triangle-down")

_LATE = (
    f"A loop counts if it goes round {MIN_ROUNDS} times, so late loops of long rounds are missed."
)


def draw(tables: Tables) -> Figures:
    """Loop shares, survival, the frontier against loss, the grid, escape, and noticing."""
    conditions = tables["conditions"]
    return {
        "loop_share": _shares(conditions[conditions["prompts"] == REPORT]),
        "survival": _survival(tables["survival"]),
        "frontier": _frontier(conditions[conditions["prompts"] == REPORT]),
        "grid": effect_heatmaps(
            tables["grid"],
            title="True next token minus no patch, by layer and strength",
            bars={
                measure: "red: worse, nats" if measure.endswith(", nats") else "red: worse"
                for measure in tables["grid"]["measure"]
            },
        ),
        "escape": curves(
            {"": tables["escape"]},
            Axes(
                "rounds_said",
                "estimate",
                "condition",
                "rounds said",
                "probability of another round",
                {"rangemode": "tozero"},
            ),
            title="Going round once more after k rounds",
        ),
        "noticing": _noticing(tables["noticing"]),
    }


def _shares(conditions: pd.DataFrame) -> "go.Figure":
    import plotly.graph_objects as go

    rows = conditions.iloc[::-1]
    figure = go.Figure(
        go.Scatter(
            x=rows["loop_share"].tolist(),
            y=[_wrapped(name) for name in rows["condition"]],
            mode="markers",
            marker={"size": 9, "color": [_group_colour(name) for name in rows["family"]]},
            error_x=_bars(rows, "loop_share", "loop_low", "loop_high", color=EITHER_INK),
            text=[_describe(row) for row in rows.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_layout(
        template=template("light"),
        title=heading(
            "Share of samples that end in a loop",
            "Blue: no patch, greedy. Orange: the true next token. Grey: all else.",
        ),
        height=141 + 34 * len(rows),
        margin={"l": 8, "r": 16, "t": 69, "b": 48},
        xaxis={
            "title": {"text": "share of the samples"},
            "tickformat": ".0%",
            "range": [-0.02, 1.02],
        },
        yaxis={"automargin": True, "tickfont": {"size": 11}},
    )
    return figure


def _survival(table: pd.DataFrame) -> "go.Figure":
    greedy = table["condition"].str.endswith("greedy")
    penalised = table["family"] == "repetition penalty"
    # The view says that all of it is greedy.
    names = table["condition"].str.removesuffix(", greedy")
    views = {
        "greedy": table[greedy].assign(condition=names[greedy]),
        "sampled, and other rules": table[~greedy & ~penalised],
        "repetition penalty": table[penalised | (table["family"] == "no patch")],
    }
    return curves(
        {name: rows for name, rows in views.items() if not rows.empty},
        Axes(
            "token",
            "estimate",
            "condition",
            "new tokens",
            "share without a loop",
            {"tickformat": ".0%", "range": [0, 1.02]},
        ),
        title="Samples that have not entered a loop",
        subtitle=_LATE,
    )


def _frontier(conditions: pd.DataFrame) -> "go.Figure":
    """Loop share and rep-4 against the cost on held-out text, a line for each family."""
    import plotly.graph_objects as go

    views = (
        ("share ending in a loop", "loop_share", "loop_low", "loop_high"),
        ("rep-4", "rep_4", "rep_4_low", "rep_4_high"),
    )
    traces, owner = [], []
    families = [str(family) for family in conditions["family"].unique()]
    for name, value, low, high in views:
        for place, (family, rows) in enumerate(conditions.groupby("family", sort=False)):
            ordered = rows.sort_values("loss_change")
            traces.append(
                go.Scatter(
                    x=ordered["loss_change"].tolist(),
                    y=ordered[value].tolist(),
                    error_x=_bars(
                        ordered, "loss_change", "loss_change_low", "loss_change_high", width=0
                    ),
                    error_y=_bars(ordered, value, low, high, width=0),
                    mode="markers" if family == "controls" else "lines+markers",
                    name=str(family),
                    visible=name == views[0][0],
                    marker={"size": 9, "symbol": _MARKERS[place % len(_MARKERS)]},
                    line={"color": _line_colour(str(family), families), "width": 1.5},
                    text=[_describe(row) for row in ordered.to_dict("records")],
                    hovertemplate="%{text}<extra></extra>",
                )
            )
            owner.append(name)
    figure = go.Figure(traces)
    figure.update_layout(
        template=template("light"),
        title=heading("What leaving loops costs: lower left is better"),
        height=480,
        margin={"l": 60, "r": 16, "t": 84, "b": 120},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
        hovermode="closest",
        xaxis={
            "title": {
                "text": "smoothed loss on held-out prose minus the plain model's, nats a token<br>"
                "(greedy decoding: of the distribution whose top it takes)"
            }
        },
        yaxis={"title": {"text": views[0][0]}, "rangemode": "tozero"},
    )
    add_menu(figure, owner, {name: {"yaxis.title.text": name} for name, *_ in views})
    return figure


def _noticing(table: pd.DataFrame) -> "go.Figure":
    rows = table.assign(
        said=["round " + str(number) for number in table["round"]],
        point=table["point"].map(point_name),
    )
    shares = rows.assign(estimate=rows["top_share"]).drop(columns=["low", "high"])
    titles = {
        "rank of the right token": "mean of ln(1 + rank)",
        "share of tokens it ranks first": "share of tokens",
    }
    return curves(
        dict(zip(titles, (rows, shares), strict=True)),
        Axes("point", "estimate", "said", AXIS, titles),
        title="Where repetition is noticed: the right continuation by layer and round",
    )


def _group_colour(family: str) -> str:
    if family.startswith("true next token"):
        return LINES[1]
    return LINES[0] if family == "no patch" else EITHER_INK


def _line_colour(family: str, families: Sequence[str]) -> str:
    """The colour of `_group_colour`; a family that is grey there gets one that is still free."""
    grey = [each for each in families if _group_colour(each) == EITHER_INK]
    if family not in grey or grey.index(family) >= len(LINES[2:]):
        return _group_colour(family)
    return LINES[2:][grey.index(family)]


def _bars(
    rows: pd.DataFrame, value: str, low: str, high: str, width: int = 4, **style: str
) -> dict:
    return error_bars(rows, value, low, high, thickness=0.7, width=width, **style)


def _describe(row: dict) -> str:
    return (
        f"{row['condition']}<br>{row['loop_share']:.0%} of {row['n']} end in a loop "
        f"[{row['loop_low']:.0%}, {row['loop_high']:.0%}]<br>rep-4 {row['rep_4']:.2f}<br>"
        f"loss {row['loss']:.3f} nats, {row['loss_change']:+.3f} from the plain model "
        f"[{row['loss_change_low']:+.3f}, {row['loss_change_high']:+.3f}]"
        + (f"<br>{row['excluded']:.1%} of held-out tokens cut off" if row["excluded"] else "")
    )


def _wrapped(name: str) -> str:
    return name.replace(" (", "<br>(", 1)
