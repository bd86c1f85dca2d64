"""What patches of single positions and layers do to a metric, as a table and a heat map."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from .._summary import summary
from ..drawing.effect_map import draw_effect_map
from ..drawing.theme import ThemeName
from .patch import NextTokenPatch

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class EffectMap:
    """The change of a metric when one position at one layer is patched with its next token.

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

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the theme is unknown.
        """
        return draw_effect_map(
            self.effect.numpy(),
            baseline=self.baseline,
            layers=self.layers,
            positions=self.positions,
            tokens=self.tokens,
            next_tokens=self.next_tokens,
            theme=theme,
        )
