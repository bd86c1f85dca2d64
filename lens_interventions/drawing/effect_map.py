"""A heat map of the effect of one position at one layer on a metric."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .cell_size import short_labels
from .clipped import clipped_scale
from .labels import visible
from .panel import Panel
from .theme import ThemeName
from .wrapped import draw_wrapped

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

    Colours stop at the size that 98% of the effects do not exceed, because one cell, such as the
    first position, may dwarf all others. A cell that is NaN is a gap.

    **Arguments:**

    - `effect`: `[layer, pos]`, the changes of the metric, in its unit.
    - `baseline`: the metric without a patch, which the title shows.
    - `layers`: the layers of the rows.
    - `positions`, `tokens`, `next_tokens`: for each column its position, the token there and the
        next token.
    - `theme`: `"light"` or `"dark"`.

    Raises `ValueError` if the theme is unknown.
    """
    scale, ticks, beyond = clipped_scale(effect)
    inputs, outputs = (tuple(map(visible, texts)) for texts in (tokens, next_tokens))
    here, following = map(short_labels, (inputs, outputs))
    panel = Panel(
        places=effect,
        scale=scale,
        ticks=ticks,
        bar_title="change of the metric",
        texts=(("",) * len(positions),) * len(layers),
        outlined=np.zeros(effect.shape, bool),
        rows=tuple(map(str, layers)),
        inputs=inputs,
        outputs=outputs,
        hover_template=(
            "layer %{customdata[0]}, position %{customdata[1]}<br>"
            "at %{customdata[2]}, next %{customdata[3]}<br>effect %{z:.4g}<extra></extra>"
        ),
        hover_data=[
            [[layer, *column] for column in zip(positions, here, following, strict=True)]
            for layer in layers
        ],
    )
    reading = (
        "A cell is one position at one layer, patched with the token that comes next: it stands "
        f"above, the position's own token below. {beyond}"
    )
    if np.isnan(effect).any():
        reading += " In a gap the metric is not a number."

    return draw_wrapped(
        panel,
        title=f"Change of the metric, {baseline:.4g} without a patch".replace("-", "−"),
        reading=lambda _size: reading,
        axis="patched layer",
        theme=theme,
    )
