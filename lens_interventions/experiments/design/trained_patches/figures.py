"""What trainings gain over each other, by kind of text, as a figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ....drawing.error_bars import contrast_points, interval_hover
from ....drawing.theme import template
from ....drawing.titles import heading
from ....measures.verdicts import JOINT

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_gain(shown: pd.DataFrame, names: Mapping[str, str], title: str) -> "go.Figure":
    """The true token minus each other, and minus the best of the others.

    `shown` are rows of a table of contrasts; `names` say what some values of `minus` are.
    """
    import plotly.graph_objects as go

    words = {JOINT: "the best of the others", **names}
    labels = shown["scope"] + ": true − " + shown["minus"].replace(words)
    marked = shown["minus"].where(shown["minus"] == JOINT, "none")
    figure = go.Figure(
        contrast_points(
            shown.assign(minus=marked),
            labels=labels.tolist(),
            hover=[
                interval_hover(label, row)
                for label, row in zip(labels, shown.to_dict("records"), strict=True)
            ],
        )
    )
    figure.add_vline(x=0, line={"width": 1, "dash": "dot"})
    figure.update_layout(
        template=template("light"),
        title=heading(title),
        height=130 + 26 * len(shown),
        margin={"l": 280, "r": 16, "t": 60, "b": 50},
        xaxis={"title": {"text": "change of the loss, nats a token (below 0 is better)"}},
        yaxis={"autorange": "reversed", "type": "category"},
    )
    return figure
