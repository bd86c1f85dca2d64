"""A heat map of what one position at one layer does to a metric."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .labels import markup, shorten, visible
from .panel import LABEL_WIDTH
from .theme import ThemeName, template

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_effect_map(
    effect: Float[np.ndarray, "layer pos"],
    *,
    baseline: float,
    layers: Sequence[int],
    positions: Sequence[int],
    tokens: Sequence[str],
    next_tokens: Sequence[str],
    theme: ThemeName = "light",
) -> "go.Figure":
    """A heat map, the highest layer at the top: red where the effect is above zero, blue below.

    **Arguments:**

    - `effect`: changes of the metric, in its unit.
    - `baseline`: the metric without a patch, which the title tells.
    - `layers`: of the rows.
    - `positions`, `tokens`, `next_tokens`: of the columns: where, the token there, and the one that
        comes next.
    - `theme`: `"light"` or `"dark"`.

    Raises `ValueError` if the theme is unknown.
    """
    import plotly.graph_objects as go

    here, following = (
        [markup(shorten(visible(text), LABEL_WIDTH)) for text in texts]
        for texts in (tokens, next_tokens)
    )
    heatmap = go.Heatmap(
        z=effect.tolist(),
        x=list(range(len(positions))),
        y=list(range(len(layers))),
        customdata=[
            [[layer, *column] for column in zip(positions, here, following, strict=True)]
            for layer in layers
        ],
        coloraxis="coloraxis",
        hovertemplate=(
            "layer %{customdata[0]}, position %{customdata[1]}<br>"
            "at %{customdata[2]}, next %{customdata[3]}<br>effect %{z:.4g}<extra></extra>"
        ),
    )
    figure = go.Figure(heatmap)
    # Columns are numbered: on a category axis plotly merges tokens that repeat.
    figure.update_xaxes(
        title="position patched, with the token that comes next",
        tickvals=list(range(len(positions))),
        ticktext=following,
        tickangle=-45,
        showgrid=False,
    )
    figure.update_yaxes(
        title="layer",
        tickvals=list(range(len(layers))),
        ticktext=[str(layer) for layer in layers],
        showgrid=False,
    )
    return figure.update_layout(
        title={
            "text": f"Change of the metric, {baseline:.4g} without a patch",
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
        },
        coloraxis={"cmid": 0, "colorbar": {"title": "change of<br>the metric"}},
        template=template(theme),
        width=max(700, 200 + 20 * len(positions)),
        height=max(400, 220 + 16 * len(layers)),
    )
