"""Figures of what was learned: one for each part of the inspection."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import LINES, PALETTES, ZERO_LINE, colorscale
from ...drawing.error_bars import error_bars, interval_hover
from ...drawing.labels import markup
from ...drawing.theme import template
from ...drawing.titles import heading
from .position_kinds import KINDS

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HEADS = 16
_LOOK_UPS = ("earlier occurrence", "after one", "before one")


def ablation_figure(table: pd.DataFrame) -> "go.Figure":
    """The change of the loss on random copies, with the write everywhere and in parts."""
    import plotly.graph_objects as go

    rows = table[table["minus"] == "none"]
    figure = go.Figure(
        go.Scatter(
            x=rows["estimate"].tolist(),
            y=rows["condition"].tolist(),
            error_x=error_bars(rows),
            mode="markers",
            marker={"size": 10, "color": LINES[0]},
            text=[interval_hover(row["condition"], row) for row in rows.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line=ZERO_LINE)
    figure.update_layout(
        **_layout("Change of loss on copies, with the write taken away in places", 240),
        xaxis={"title": {"text": "loss minus that without a patch, nats (below 0 is better)"}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    figure.update_layout(margin={"l": 170})
    return figure


def directions_figure(table: pd.DataFrame) -> "go.Figure":
    """Singular values; a direction's hover shows the tokens that it reads and writes."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, (seed, rows) in enumerate(table.groupby("seed", sort=True)):
        texts = [
            "<br>".join(
                f"{'+' if row['sign'] > 0 else '−'} reads {markup(row['reads'])}<br>"
                f"&nbsp; writes {markup(row['writes'])}"
                for row in part.to_dict("records")
            )
            for _, part in rows.groupby("direction", sort=True)
        ]
        one = rows[rows["sign"] == 1]
        figure.add_trace(
            go.Scatter(
                x=one["direction"].tolist(),
                y=one["value"].tolist(),
                mode="lines+markers",
                line={"color": LINES[place % len(LINES)]},
                name=f"seed {seed}",
                customdata=texts,
                hovertemplate="%{y:.3g}<br>%{customdata}<extra></extra>",
            )
        )
    figure.update_layout(
        **_layout("Singular values of the learned map", 380),
        xaxis={"title": {"text": "direction"}, "dtick": 1},
        yaxis={"title": {"text": "singular value"}, "rangemode": "tozero"},
    )
    return figure


def attention_figure(table: pd.DataFrame) -> "go.Figure":
    """Changes of attention of the heads whose look-ups of earlier occurrences change most."""
    import plotly.graph_objects as go

    table = table.assign(name=[f"L{r['layer']}H{r['head']}" for r in table.to_dict("records")])
    kinds = list(KINDS)
    # The table is in the order of the changes, and most of it is the first position giving way.
    heads = list(dict.fromkeys(table[table["kind"].isin(_LOOK_UPS)]["name"]))[:_HEADS]
    chosen = table[table["name"].isin(heads)].set_index(["name", "kind"])
    changes = [[float(chosen.loc[(head, kind), "change"]) for kind in kinds] for head in heads]
    hover = [
        [
            f"head {head}, {kind}<br>{chosen.loc[(head, kind), 'clean']:.3f} without, "
            f"{chosen.loc[(head, kind), 'patched']:.3f} with the write"
            for kind in kinds
        ]
        for head in heads
    ]
    largest = max((abs(value) for row in changes for value in row), default=0.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            x=kinds,
            y=heads,
            z=changes,
            zmin=-largest,
            zmax=largest,
            colorscale=colorscale(PALETTES["difference-light"]),
            text=[[f"{value:+.2f}".replace("-", "−") for value in row] for row in changes],
            texttemplate="%{text}",
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorbar={"thickness": 10},
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(
        **_layout(
            "Change of attention from the second copy, by the place it goes to",
            140 + 26 * len(heads),
        ),
        yaxis={"autorange": "reversed", "type": "category", "title": {"text": "head"}},
    )
    return figure


def _layout(title: str, height: int) -> dict[str, Any]:
    return {
        "template": template("light"),
        "title": heading(title),
        "height": height,
        "margin": {"l": 80, "r": 16, "t": 48, "b": 60},
    }
