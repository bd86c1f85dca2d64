"""What one position at one layer does to a metric, as a heat map."""

from typing import TYPE_CHECKING

from ..intervention.effect_map import EffectMap
from .labels import markup, shorten, visible
from .panel import LABEL_WIDTH
from .theme import ThemeName, template

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_effects(effects: EffectMap, *, theme: ThemeName = "light") -> "go.Figure":
    """A heat map, the highest layer at the top: red where it raises the metric, blue below.

    Raises `ValueError` for an unknown theme.
    """
    import plotly.graph_objects as go

    tokens, following = (
        [markup(shorten(visible(text), LABEL_WIDTH)) for text in texts]
        for texts in (effects.tokens, effects.next_tokens)
    )
    heatmap = go.Heatmap(
        z=effects.effect.tolist(),
        x=list(range(len(effects.positions))),
        y=list(range(len(effects.layers))),
        customdata=[
            [[layer, *column] for column in zip(effects.positions, tokens, following, strict=True)]
            for layer in effects.layers
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
        tickvals=list(range(len(effects.positions))),
        ticktext=following,
        tickangle=-45,
        showgrid=False,
    )
    figure.update_yaxes(
        title="layer",
        tickvals=list(range(len(effects.layers))),
        ticktext=[str(layer) for layer in effects.layers],
        showgrid=False,
    )
    return figure.update_layout(
        title={
            "text": f"Change of the metric, {effects.baseline:.4g} without a patch",
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
        },
        coloraxis={"cmid": 0, "colorbar": {"title": "change of<br>the metric"}},
        template=template(theme),
        width=max(700, 200 + 20 * len(effects.positions)),
        height=max(400, 220 + 16 * len(effects.layers)),
    )
