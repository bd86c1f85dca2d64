"""Slopes by layer, source, mode, embedding and scope, with each text's share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..._summary import summary
from ...drawing.labels import counted, estimate_text, markup
from ...measures.interval_table import interval_rows
from ...measures.intervals import mean_interval
from ..names import name_of
from ..patch import NextTokenPatch
from ..patch_fields import differing
from ..sources import minus_controls
from .curvature_result import Curvature
from .final_guess import final_guess
from .prediction import SlopePrediction

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ...drawing.theme import ThemeName

# What patches of one map have in common.
_COMMON = ("scale", "gate", "gate_on", "window", "lens", "seed")


@dataclass(frozen=True, eq=False)
class SlopeMap:
    """d(loss)/d(strength) at strength 0 of patches at every layer, in nats per predicted token.

    Attributes:
        totals: `[text, scope, embedding, mode, source, layer]`, the derivative of the sum of each
            text's nats.
        counts: `[text, scope]`, how many predictions that sum is over.
        nats: `[text, scope]`, that sum without a patch.
        sources, modes, embeddings, scopes, layers: the names along the axes.
        patches: the patches that were differentiated, in the order of the axes embedding, mode and
            source; each acts at all the layers.
    """

    totals: Float[np.ndarray, "text scope embedding mode source layer"]
    counts: Float[np.ndarray, "text scope"]
    nats: Float[np.ndarray, "text scope"]
    sources: tuple[str, ...]
    modes: tuple[str, ...]
    embeddings: tuple[str, ...]
    scopes: tuple[str, ...]
    layers: tuple[int, ...]
    patches: tuple[NextTokenPatch, ...]

    __repr__ = summary

    @property
    def slopes(self) -> Float[np.ndarray, "scope embedding mode source layer"]:
        """Mean slopes over all predictions of all texts; nan for a scope without predictions."""
        counts = self.counts.sum(0).reshape(-1, 1, 1, 1, 1)
        return self.totals.sum(0) / np.where(counts > 0, counts, np.nan)

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pd.DataFrame":
        """One row per slope: layer, source, minus, mode, embedding, scope, estimate, low, high, n.

        `minus` is empty for the slope of a source; where it names a control, the row is the slope
        of the true source minus that of the control, paired by text. Intervals, at confidence
        `level`, resample the `n` texts that have predictions in the scope.
        """
        import pandas as pd

        rows = []
        for place, totals in self._columns():
            counts = self.counts[:, self.scopes.index(place["scope"])]
            places = [{"layer": layer, **place} for layer in self.layers]
            rows += interval_rows(places, totals, counts, level=level, seed=seed)
        return pd.DataFrame(rows)

    def plot(
        self,
        *,
        mode: str | None = None,
        embedding: str | None = None,
        scope: str | None = None,
        theme: "ThemeName" = "light",
    ) -> "go.Figure":
        """Heat maps by layer and source, and of the true source minus each control beside it.

        Blue lowers the loss, red raises it; the hover shows intervals. `mode`, `embedding` and
        `scope` choose what is shown, by default the first of each. `theme` is `"light"` or
        `"dark"`.

        Raises `ValueError` for a name that the map does not have or an unknown theme.
        """
        from ...drawing.layer_heatmaps import LayerPanel, layer_heatmaps

        shown = {
            "mode": _chosen("mode", mode, self.modes),
            "embedding": _chosen("embedding", embedding, self.embeddings),
            "scope": _chosen("scope", scope, self.scopes),
        }
        frame = self._only(shown).to_dataframe()
        panels = [
            LayerPanel.of(rows, names, title=title, hover=_hover)
            for title, rows, names in (
                ("each source", frame[frame["minus"] == ""], "source"),
                ("the true source minus", frame[frame["minus"] != ""], "minus"),
            )
            if len(rows)
        ]
        what = f"mode {shown['mode']}, {shown['embedding']}"
        where = "" if shown["scope"] == "all" else f", {shown['scope'].replace('_', ' ')}"
        return layer_heatmaps(
            panels,
            title=f"Slope of the loss: {what}{where}. Blue lowers it",
            unit="nats per unit<br>of strength",
            theme=theme,
        )

    def patch(
        self,
        layer: int,
        *,
        strength: float,
        source: str = "true",
        mode: str | None = None,
        embedding: str | None = None,
    ) -> NextTokenPatch:
        """The patch of one cell of the map, at a strength with which it can be run.

        Raises `ValueError` for a cell that the map does not have, and for the source
        `"final_guess"`, which a patch cannot know.
        """
        patch = self._patch_at(self._cell(embedding, mode, source))
        _chosen("layer", layer, self.layers)
        if patch.source is final_guess:
            raise ValueError(
                "a patch cannot write the model's final guess, which is known only after its run"
            )
        return replace(patch, layer=layer, strength=strength)

    def predict(
        self,
        patch: NextTokenPatch,
        *,
        scope: str | None = None,
        curvature: Curvature | None = None,
        level: float = 0.95,
        seed: int = 0,
    ) -> SlopePrediction:
        """How a patch would change the loss, to first order, or to second order with a curvature.

        The slope of a patch of several layers is the sum of the layers' slopes. The positions of
        the patch are ignored: the map's own count, and a curvature must have been measured at
        these.

        **Arguments:**

        - `patch`: a patch whose source, mode, embedding and layers are in the map, with the map's
            scale, gate, window, lens and seed.
        - `scope`: which predictions, by default the first scope of the map.
        - `curvature`: the result of `li.curvature` for this patch, at any strength.
        - `level`, `seed`: confidence of the intervals, and the seed of their resamples.

        Raises `ValueError` if the map or the curvature does not have the patch.
        """
        named = _chosen("scope", scope, self.scopes)
        if others := differing(self.patches[0], patch, _COMMON):
            name = others[0]
            raise ValueError(
                f"the map was made with {name}={getattr(self.patches[0], name)!r}, but the patch "
                f"has {getattr(patch, name)!r}: make a map with slope_map(..., {name}=...)"
            )
        cell = self._cell(patch.embedding, name_of(patch.mode), name_of(patch.source))
        if others := differing(self._patch_at(cell), patch, ("mode", "source")):
            raise ValueError(
                f"the map's {others[0]} of this name is another function: give the one that "
                "slope_map got"
            )
        layers = [_place("layer", layer, self.layers) for layer in patch.layers]
        s = self.scopes.index(named)
        slope = mean_interval(
            self.totals[:, s, *cell][:, layers].sum(1),
            self.counts[:, s],
            rng=np.random.default_rng(seed),
            level=level,
        )
        bend = None
        if curvature is not None:
            of_map = replace(patch, positions="all", first_position=self.patches[0].first_position)
            bend = curvature.of(of_map, scope=named, level=level, seed=seed)
        return SlopePrediction(strength=patch.strength, slope=slope, curvature=bend)

    def _columns(self) -> Iterator[tuple[dict[str, Any], Float[np.ndarray, "layer text"]]]:
        for s, e, m in np.ndindex(self.totals.shape[1:4]):
            place = {
                "mode": self.modes[m],
                "embedding": self.embeddings[e],
                "scope": self.scopes[s],
            }
            of = {source: self.totals[:, s, e, m, i].T for i, source in enumerate(self.sources)}
            for source, totals in of.items():
                yield {"source": source, "minus": "", **place}, totals
            for control, totals in minus_controls(of):
                yield {"source": "true", "minus": control, **place}, totals

    def _cell(self, embedding: str | None, mode: str | None, source: str) -> tuple[int, int, int]:
        """The place of a patch along the axes embedding, mode and source."""
        return (
            _place("embedding", embedding, self.embeddings),
            _place("mode", mode, self.modes),
            _place("source", source, self.sources),
        )

    def _patch_at(self, cell: tuple[int, int, int]) -> NextTokenPatch:
        shape = (len(self.embeddings), len(self.modes), len(self.sources))
        return self.patches[np.ravel_multi_index(cell, shape)]

    def _only(self, shown: dict[str, str]) -> "SlopeMap":
        """The map of one mode, embedding and scope."""
        s = [self.scopes.index(shown["scope"])]
        e = [self.embeddings.index(shown["embedding"])]
        m = [self.modes.index(shown["mode"])]
        return replace(
            self,
            patches=tuple(self._patch_at((e[0], m[0], i)) for i in range(len(self.sources))),
            totals=self.totals[:, s][:, :, e][:, :, :, m],
            counts=self.counts[:, s],
            nats=self.nats[:, s],
            scopes=(shown["scope"],),
            embeddings=(shown["embedding"],),
            modes=(shown["mode"],),
        )


def _chosen(kind: str, name: Any, names: tuple) -> Any:
    """A name of an axis, the first if none is asked for."""
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"the map has no {kind} {name!r}; it has {', '.join(map(str, names))}")
    return name


def _place(kind: str, name: Any, names: tuple) -> int:
    return names.index(_chosen(kind, name, names))


def _hover(row: dict[str, Any]) -> str:
    minus = f" minus {row['minus']}" if row["minus"] else ""
    name = markup((row["source"] + minus).replace("_", " "))
    return f"layer {row['layer']}, {name}<br>{estimate_text(row)}<br>{counted(row['n'], 'text')}"
