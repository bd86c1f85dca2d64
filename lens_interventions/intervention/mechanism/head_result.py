"""Slopes by head, with each text's share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..._summary import summary
from ...drawing.labels import estimate_text
from ...measures.interval_table import interval_table
from ..patch import NextTokenPatch
from ..sources import minus_controls

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ...drawing.theme import ThemeName

PARTS = ("keys", "values")
"""The parts of a head that a patch moves."""


SHOWN_MATCHING = 0.1
"""The prefix matching from which a figure tells it."""


@dataclass(frozen=True, eq=False)
class HeadSlopes:
    """d(loss)/d(strength) at strength 0 through the keys or the values of single heads, in nats.

    Attributes:
        totals: `[text, scope, source, layer, part, head]`, the derivative of the sum of each text's
            nats. The parts are keys and values, and the heads are those of keys and values.
        counts: `[text, scope]`, how many predictions that sum is over.
        matching: `[layer, query_head]`, each query head's mean attention to the token to be copied,
            on random tokens that are repeated once (Olsson et al. 2022); near 1 in an induction
            head.
        previous: `[layer, query_head]`, its mean attention to the previous position on the same
            tokens.
        copying: `[layer, query_head]`, by how many standard deviations its output raises the logit
            of the token that it attends to above the logits of others. A negative score lowers that
            logit, as copy-suppression heads do (McDougall et al. 2023).
        sources, scopes, layers: the names along the axes.
        patches: the patch of each source; their strengths are ignored.
    """

    totals: Float[np.ndarray, "text scope source layer part head"]
    counts: Float[np.ndarray, "text scope"]
    matching: Float[np.ndarray, "layer query_head"]
    previous: Float[np.ndarray, "layer query_head"]
    copying: Float[np.ndarray, "layer query_head"]
    sources: tuple[str, ...]
    scopes: tuple[str, ...]
    layers: tuple[int, ...]
    patches: tuple[NextTokenPatch, ...]

    __repr__ = summary

    def scores(self) -> dict[str, Float[np.ndarray, "layer head"]]:
        """`matching`, `previous` and `copying` of each head that has keys and values.

        If several query heads share it, these are the largest `matching` and `previous`, and the
        `copying` that is furthest from 0.
        """
        shape = (len(self.layers), self.totals.shape[-1], -1)
        copying = self.copying.reshape(shape)
        furthest = np.abs(copying).argmax(-1, keepdims=True)
        return {
            "matching": self.matching.reshape(shape).max(-1),
            "previous": self.previous.reshape(shape).max(-1),
            "copying": np.take_along_axis(copying, furthest, axis=-1)[..., 0],
        }

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pd.DataFrame":
        """One row per slope: layer, head, part, source, minus, scope, `scores`, and its interval.

        `minus` is empty for the slope of a source; where it names a control, the row is the slope
        of the true source minus that of the control, paired by text. The columns estimate, low and
        high are in nats per predicted token. The interval has confidence `level` and resamples the
        `n` texts.
        """
        return interval_table(self._totals(), level=level, seed=seed)

    def plot(
        self,
        *,
        source: str | None = None,
        minus: str = "",
        scope: str | None = None,
        theme: "ThemeName" = "light",
    ) -> "go.Figure":
        """Heat maps by layer and head, of keys and of values; blue lowers the loss.

        A number in a cell is the head's matching score if it is at least 0.1, which marks induction
        heads. The hover shows the interval. `source` and `scope` choose what is shown, by default
        the first of each; `minus` names a control whose slope is subtracted from that of the true
        source, which is then shown. `theme` is `"light"` or `"dark"`.

        Raises `ValueError` for a source, control or scope that was not measured.
        """
        from ...drawing.layer_heatmaps import LayerPanel, layer_heatmaps

        source = source or ("true" if minus else self.sources[0])
        scope = scope or self.scopes[0]
        frame = self.to_dataframe()
        frame = frame[
            (frame["source"] == source) & (frame["minus"] == minus) & (frame["scope"] == scope)
        ]
        if frame.empty:
            raise ValueError(
                f"there is no slope of {source!r} minus {minus!r} in {scope!r}; the sources are "
                f"{', '.join(self.sources)}, the scopes {', '.join(self.scopes)}"
            )
        frame = frame.assign(head="head " + frame["head"].astype(str))
        panels = [
            LayerPanel.of(rows, "head", title=f"through {part}", hover=_hover, text=_matching)
            for part, rows in frame.groupby("part")
        ]
        what = f"{source} minus {minus}" if minus else source
        return layer_heatmaps(
            panels,
            title=f"Slope of the loss by head: {what.replace('_', ' ')}, {scope.replace('_', ' ')}",
            below="Blue lowers the loss. In cells: prefix matching.",
            unit="nats per unit<br>of strength",
            theme=theme,
        )

    def _totals(self) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
        """For each row of the table: its columns, the sums of each text, and their counts."""
        scores = self.scores()
        for s, k, p, h in np.ndindex(
            len(self.scopes), len(self.layers), len(PARTS), self.totals.shape[-1]
        ):
            place = {"layer": self.layers[k], "head": h, "part": PARTS[p]}
            of_head = {name: float(values[k, h]) for name, values in scores.items()}
            last = {"scope": self.scopes[s], **of_head}
            of = {name: self.totals[:, s, i, k, p, h] for i, name in enumerate(self.sources)}
            counts = self.counts[:, s]
            for source, total in of.items():
                yield {**place, "source": source, "minus": "", **last}, total, counts
            for control, total in minus_controls(of):
                yield {**place, "source": "true", "minus": control, **last}, total, counts


def _matching(row: dict[str, Any]) -> str:
    return f"{row['matching']:.2f}" if row["matching"] >= SHOWN_MATCHING else ""


def _hover(row: dict[str, Any]) -> str:
    return (
        f"layer {row['layer']}, {row['head']}, {row['part']}<br>{estimate_text(row)}"
        f"<br>matching {row['matching']:.2f}, "
        f"previous {row['previous']:.2f}, copying {row['copying']:+.1f}"
    )
