"""Figures of the experiment with learned writes."""

import textwrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...drawing.colours import ZERO_LINE
from ...drawing.error_bars import contrast_hover, contrast_points, subtracted
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ...measures.verdicts import JOINT
from ..design.category_points import HEADLINE, category_points
from ..design.conditions import in_words
from ..design.rows_of_sums import rows_where
from ..engine.results import Figures, Tables
from .inspection_figures import ablation_figure, attention_figure, directions_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLUMNS = 2
_LETTERS = 30  # of a panel's title in one line, in the narrowest figure
BELOW_IS_BETTER = "change, nats of loss or as named (below 0 is better)"


def draw(tables: Tables) -> Figures:
    """All figures by name; those of sweeps and attention only if there are such tables."""
    figures = {
        "materials": _materials(tables["contrasts"]),
        "curves": _curves(tables["curves"]),
        "surprisal": _categories(tables["categories"]),
    }
    for name, x in (("layers", "layer"), ("ranks", "rank")):
        if name in tables:
            figures[name] = _sweep(tables[name], x)
    figures["ablation"] = ablation_figure(tables["ablation"])
    figures["directions"] = directions_figure(tables["directions"])
    if "attention" in tables:
        figures["attention"] = attention_figure(tables["attention"])
    return figures


def _materials(contrasts: pd.DataFrame) -> "go.Figure":
    """A panel for each question: the true source minus each reference, and controls alone."""
    from plotly.subplots import make_subplots

    by_question = [part for _, part in contrasts.groupby("question", sort=False)]
    n_rows = -(-len(by_question) // _COLUMNS)
    figure = make_subplots(
        rows=n_rows,
        cols=_COLUMNS,
        subplot_titles=[_heading(part) for part in by_question],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.3 / n_rows,
    )
    for place, part in enumerate(by_question):
        # Where more is better, the sign is turned, so that below 0 is better in every panel.
        rows = in_words(_as_losses(part))
        figure.add_trace(
            contrast_points(
                rows.assign(headline=rows["minus"] == JOINT),
                labels=[_label(row) for row in rows.to_dict("records")],
                hover=[contrast_hover(row) for row in rows.to_dict("records")],
            ),
            row=place // _COLUMNS + 1,
            col=place % _COLUMNS + 1,
        )
    figure.add_vline(x=0, line=ZERO_LINE)
    figure.update_annotations(font={"size": 12})
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(nticks=5)
    figure.update_xaxes(title={"text": "nats, or as named<br>(below 0 is better)"}, row=n_rows)
    figure.update_layout(
        template=template("light"),
        title=heading("Change by source and material, reporting part", HEADLINE),
        height=138 + 300 * n_rows,
        margin={"l": 220, "r": 16, "t": 112, "b": 50},
    )
    return figure


def _curves(rows: pd.DataFrame) -> "go.Figure":
    """The change of the loss while the writes of the main comparison are trained, over seeds."""
    main = rows_where(rows, **{name: rows[name].iloc[0] for name in ("steps", "layer", "rank")})
    over_seeds = main.groupby(["kind", "source", "step"], sort=False)["change"]
    means = over_seeds.agg(change="mean", low="min", high="max").reset_index()
    axes = Axes(
        x="step",
        y="change",
        group="source",
        x_title="steps made",
        y_title="loss minus that without a patch, nats a token",
    )
    views = {
        label: means[means["kind"] == kind]
        for label, kind in (("held-out text", "held-out"), ("text of the step", "step"))
    }
    return curves(
        views, axes, title="Change of loss while writes are trained (band: least and most)"
    )


def _categories(rows: pd.DataFrame) -> "go.Figure":
    """The true source minus no patch, and minus all its references, by kind of token and word."""
    views = {}
    for name, part in rows.groupby("division", sort=False):
        turned = not part["lower_is_better"].iloc[0]
        views[f"{name} (log-prob, sign turned)" if turned else str(name)] = _as_losses(part)
    return category_points(
        views,
        title="Change of loss by kind of token, reporting part",
        y_title="change of loss, nats (below 0 is better)",
    )


def _sweep(rows: pd.DataFrame, x: str) -> "go.Figure":
    names = {
        (True, False): "true − best control",
        (True, True): "true − no patch",
        (False, True): "best control − no patch",
    }
    kinds = zip(rows["source"] == "true", rows["minus"] == "none", strict=True)
    named = rows.assign(name=[names[kind] for kind in kinds], x=rows[x].astype(str))
    axes = Axes(x="x", y="estimate", group="name", x_title=x, y_title=BELOW_IS_BETTER)
    views = {str(name): part for name, part in named.groupby("material", sort=False)}
    steps = rows["steps"].iloc[0]
    return curves(views, axes, title=f"Writes trained for {steps} steps, by {x} (selection half)")


def _heading(rows: pd.DataFrame) -> str:
    question, units = rows["question"].iloc[0], rows["units"].iloc[0]
    # "of samples" is the unit of a share.
    named = [] if units == "nats" else [f"share {units}"]
    if not rows["lower_is_better"].iloc[0]:
        named.append("sign turned")
    text = f"{question} ({', '.join(named)})" if named else question
    return "<br>".join(textwrap.wrap(text, _LETTERS))


def _as_losses(rows: pd.DataFrame) -> pd.DataFrame:
    turned = ~rows["lower_is_better"].astype(bool)
    low, high = rows["low"].where(~turned, -rows["high"]), rows["high"].where(~turned, -rows["low"])
    estimate = rows["estimate"].where(~turned, -rows["estimate"])
    return rows.assign(estimate=estimate, low=low, high=high)


def _label(row: dict[Any, Any]) -> str:
    return f"{row['source']} − {subtracted(row)}"
