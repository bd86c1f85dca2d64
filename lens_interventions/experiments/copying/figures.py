"""Figures of the copying experiment."""

from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.colours import ZERO_LINE
from ...drawing.effect_grid import effect_heatmaps
from ...drawing.error_bars import contrast_hover, contrast_points, subtracted
from ...drawing.menu import add_menu
from ...drawing.table_curves import Axes, curves
from ...drawing.theme import template
from ...drawing.titles import heading
from ...lens.figures.over_layers import AXIS
from ...measures.verdicts import JOINT
from ...model.points import layer_label, point_name
from ..design.category_points import HEADLINE, category_points
from ..design.conditions import in_words
from ..design.forms import PLAIN
from ..engine.results import Figures, Tables

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BARS = {"loss": "red: worse, nats", "log_prob": "red: better, nats", "top1": "red: better, share"}
_NAMES = {
    "induction": "random tokens, loss",
    "rare words": "rare words in templates, log-prob",
    "common words": "common words in templates, log-prob",
    "copyable": "copyable tokens, loss",
    "other": "other tokens, loss",
    "surprise": "after a surprise, loss",
    "repeats": "repeats of surprising tokens, loss",
}


def draw(tables: Tables) -> Figures:
    """All figures by name."""
    categories = tables["categories"]
    return {
        "sources": _sources(tables["contrasts"]),
        "surprisal": category_points(
            {"": categories[categories["division"] == "surprisal of the token before"]},
            title="Change of loss by surprisal of the token before",
            x_title="surprisal of the token before, nats",
            y_title="change of loss, nats (below 0 is better)",
        ),
        "last_surprise": category_points(
            {"": categories[categories["division"] == "last surprise"]},
            title="Change of loss by when the last surprise came",
            x_title="",
            y_title="change of loss, nats (below 0 is better)",
        ),
        "copyable": category_points(
            {"": categories[categories["division"] == "copyable and other tokens"]},
            title="Change of loss on tokens that could have been copied, and on others",
            x_title="",
            y_title="change of loss, nats (below 0 is better)",
        ),
        "words": category_points(
            {"": categories[categories["division"] == "kind of word"]},
            title="Change of the word's log-probability, by kind of word",
            x_title="",
            y_title="change of log-prob, nats (above 0 is better)",
        ),
        "depth": _depth(_main_form(tables["grid"])),
        "forms": _forms(tables["forms"]),
        **({} if tables["slopes"].empty else {"slopes": _slopes(tables["slopes"])}),
        "lens": _lens(tables["lens"]),
    }


def _sources(contrasts: pd.DataFrame) -> "go.Figure":
    """The true source minus each reference and all together, and controls minus no patch."""
    first = contrasts.groupby("question", sort=False)["measure"].transform("first")
    shown = in_words(contrasts[contrasts["measure"] == first])
    labels = [f"{row['source']} − {subtracted(row)}" for row in shown.to_dict("records")]
    return _by_question(
        shown.assign(label=labels, headline=shown["minus"] == JOINT),
        title="Sources at the chosen cell, reporting part",
        subtitle=HEADLINE,
        height=588,
    )


def _forms(forms: pd.DataFrame) -> "go.Figure":
    """The true source minus no patch in each form of the patch, at its best cell."""
    labels = [f"{row['form']}, layer {row['layer']}" for row in forms.to_dict("records")]
    return _by_question(
        forms.assign(label=labels, source="true", minus="none"),
        title="True source − no patch, best cell of each form, reporting part",
        height=380,
    )


def _by_question(rows: pd.DataFrame, *, title: str, subtitle: str = "", height: int) -> "go.Figure":
    """Contrasts as points, one line of the figure for each, and a menu of the questions."""
    import plotly.graph_objects as go

    figure = go.Figure()
    questions = list(rows["question"].unique())
    for place, question in enumerate(questions):
        shown = rows[rows["question"] == question]
        figure.add_trace(
            contrast_points(
                shown,
                labels=shown["label"].tolist(),
                hover=[contrast_hover(row) for row in shown.to_dict("records")],
                name=_NAMES[question],
                visible=place == 0,
            )
        )
    figure.add_vline(x=0, line=ZERO_LINE)
    figure.update_layout(
        template=template("light"),
        title=heading(title, subtitle),
        height=height,
        margin={"l": 230, "r": 16, "t": 112 if subtitle else 84, "b": 50},
        xaxis={"title": {"text": _better(rows, questions[0])}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    changes = {_NAMES[each]: {"xaxis.title.text": _better(rows, each)} for each in questions}
    add_menu(figure, list(changes), changes)
    return figure


def _slopes(table: pd.DataFrame) -> "go.Figure":
    axes = Axes(
        x="layer",
        y="slope",
        group="source",
        x_title="layer that is patched",
        y_title="slope of the loss, nats per unit of strength",
    )
    views = {
        f"{name}, {scope}": rows
        for (name, scope), rows in table.groupby(["table", "scope"], sort=False)
    }
    return curves(views, axes, title="What a weak patch would do, by layer (below 0 is better)")


def _better(contrasts: pd.DataFrame, question: str) -> str:
    lower = contrasts[contrasts["question"] == question]["lower_is_better"].iloc[0]
    return f"difference, nats ({'below' if lower else 'above'} 0 is better)"


def _lens(table: pd.DataFrame) -> "go.Figure":
    n_layers = int(table["point"].max())
    named = table.assign(
        point=[point_name(layer_label(layer, n_layers)) for layer in table["point"].tolist()],
        role=table["role"].replace({"none": "no patch"}),
    )
    named = named.sort_values("role", key=lambda role: role != "true", kind="stable")
    axes = Axes(
        x="point",
        y="share",
        group="role",
        x_title=AXIS,
        y_title="share of templates with the word at the top of the lens",
    )
    views = {f"{kind} words": rows for kind, rows in named.groupby("words", sort=False)}
    return curves(views, axes, title="Where the lens puts the word at the top")


def _main_form(grid: pd.DataFrame) -> pd.DataFrame:
    """The cells of the plain form; all cells of a question that has none."""
    plain = grid["form"] == PLAIN
    return grid[plain | ~plain.groupby(grid["question"]).transform("any")]


def _depth(grid: pd.DataFrame) -> "go.Figure":
    named = _named_measures(grid)
    return effect_heatmaps(
        named,
        title="True source minus no patch, by layer and strength (selection half)",
        bars={
            name: _BARS[measure]
            for name, measure in zip(named["measure"], grid["measure"], strict=True)
        },
    )


def _named_measures(grid: pd.DataFrame) -> pd.DataFrame:
    first = grid.groupby("question", sort=False)["measure"].transform("first")
    names = [
        _NAMES[row["question"]]
        if row["measure"] == top
        else f"{_NAMES[row['question']].split(',')[0]}, {row['measure']}"
        for row, top in zip(grid.to_dict("records"), first, strict=True)
    ]
    return grid.assign(measure=names)
