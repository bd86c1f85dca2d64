"""What trainings gain over each other, by kind of text, as a figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ....drawing.error_bars import draw_contrasts
from ....measures.verdicts import JOINT
from ..category_points import HEADLINE

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_gain(shown: pd.DataFrame, names: Mapping[str, str], title: str) -> "go.Figure":
    """The true token minus each other, and minus the best of the others.

    `shown` are rows of a table of contrasts; `names` say what some values of `minus` are.
    """
    words = {JOINT: "the best of the others", **names}
    labels = shown["scope"] + ": true − " + shown["minus"].replace(words)
    return draw_contrasts(
        shown.assign(headline=shown["minus"] == JOINT),
        labels=labels.tolist(),
        title=title,
        subtitle=HEADLINE,
        x_title="change of the loss, nats a token (below 0 is better)",
    )
