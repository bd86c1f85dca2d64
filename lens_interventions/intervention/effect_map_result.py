"""What patches of single positions and layers do to a metric, as a table and a heat map."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from .._summary import summary
from ..drawing.cell_size import short_labels
from ..drawing.clipped import clipped_scale
from ..drawing.labels import visible
from ..drawing.panel import Panel
from ..drawing.theme import ThemeName
from ..drawing.wrapped import draw_wrapped
from .names import short_name
from .patch import NextTokenPatch
from .sources import SOURCES

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class EffectMap:
    """The change of a metric when one position at one layer is patched.

    Attributes:
        effect: `[layer, pos]`, the metric with the patch minus `baseline`, in the metric's unit;
            NaN where the metric is.
        baseline: the metric of the model as it is.
        layers: the patched layer of each row.
        positions: the patched position of each column.
        tokens: `x[i]` at those positions, of the first text.
        next_tokens: `x[i+1]`, of the first text.
        patch: the patch that each cell applies, at its own layer and position.
    """

    effect: Float[Tensor, "layer pos"]
    baseline: float
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    next_tokens: tuple[str, ...]
    patch: NextTokenPatch

    __repr__ = summary

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per layer and position: layer, pos, token, next_token, effect."""
        import pandas as pd

        n_layers, n_positions = self.effect.shape
        return pd.DataFrame(
            {
                "layer": [layer for layer in self.layers for _ in range(n_positions)],
                "pos": list(self.positions) * n_layers,
                "token": list(self.tokens) * n_layers,
                "next_token": list(self.next_tokens) * n_layers,
                "effect": self.effect.flatten().tolist(),
            }
        )

    def plot(self, *, theme: ThemeName = "light") -> "go.Figure":
        """A heat map, the highest layer at the top: red where it raises the metric, blue below.

        Colours stop at the size that 98% of the effects do not exceed, because one cell, such as
        the first position, may dwarf all others. A cell that is NaN is a gap.

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the theme is unknown.
        """
        effect = self.effect.numpy()
        scale, ticks, beyond = clipped_scale(effect)
        inputs, outputs = (tuple(map(visible, texts)) for texts in (self.tokens, self.next_tokens))
        here, following = map(short_labels, (inputs, outputs))
        columns = list(zip(self.positions, here, following, strict=True))
        panel = Panel(
            places=effect,
            scale=scale,
            ticks=ticks,
            bar_title="change of the metric",
            texts=(("",) * len(columns),) * len(self.layers),
            outlined=np.zeros(effect.shape, bool),
            rows=tuple(map(str, self.layers)),
            inputs=inputs,
            outputs=outputs,
            hover_template=(
                "layer %{customdata[0]}, position %{customdata[1]}<br>"
                "at %{customdata[2]}, next %{customdata[3]}<br>effect %{z:.4g}<extra></extra>"
            ),
            hover_data=[[[layer, *column] for column in columns] for layer in self.layers],
        )
        source = self.patch.source
        words = SOURCES[source].words if isinstance(source, str) else short_name(source)
        sentences = [
            f"A cell is one position at one layer, patched with this source: {words}. The token "
            "that comes next stands above, the position's own token below.",
            beyond,
            "In a gap the metric is not a number." if np.isnan(effect).any() else "",
        ]
        reading = " ".join(filter(None, sentences))
        return draw_wrapped(
            panel,
            title=f"Change of the metric, {self.baseline:.4g} without a patch".replace("-", "−"),
            reading=lambda _size: reading,
            axis="patched layer",
            theme=theme,
        )
