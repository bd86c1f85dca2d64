"""Second derivatives of the loss along patches, with each text's share."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..._summary import summary
from ...measures.intervals import Interval, mean_interval
from ..losses.result import draw_by_scope
from ..names import name_of
from ..patch import NextTokenPatch
from ..patch_fields import differing
from ..patch_labels import patch_labels

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ...drawing.theme import ThemeName

# The fields of a patch that say where it acts in a text.
_PLACES = {"positions", "first_position"}

# A curvature is that of a patch at any strength.
_COMPARED = [
    # One layer is the same as a list of one.
    {"layer": "layers"}.get(field.name, field.name)
    for field in fields(NextTokenPatch)
    if field.name != "strength"
]


@dataclass(frozen=True, eq=False)
class Curvature:
    """d²(loss)/d(strength)² at strength 0, in nats per predicted token.

    Attributes:
        curvatures: `[text, scope, patch]`, the second derivative of the sum of each text's nats.
        slopes: `[text, scope, patch]`, the first derivative of that sum, from the same patched
            runs.
        errors: `[text, scope, patch]`, an estimate of the signed error of `curvatures`: a third of
            the difference between the curvature from the step and that from twice the step.
        counts: `[text, scope]`, how many predictions the sums are over.
        patches: the patches along the axis; their strengths are ignored.
        scopes: the names along the axis.
    """

    curvatures: Float[np.ndarray, "text scope patch"]
    slopes: Float[np.ndarray, "text scope patch"]
    errors: Float[np.ndarray, "text scope patch"]
    counts: Float[np.ndarray, "text scope"]
    patches: tuple[NextTokenPatch, ...]
    scopes: tuple[str, ...]

    __repr__ = summary

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pd.DataFrame":
        """One row per patch and scope.

        Columns: patch (its number), label (what tells it from the others), layer, source, mode,
        embedding, scope; slope, curvature, curvature_low and curvature_high, the ends of its
        interval at confidence `level`, and n, its number of texts; error; best_strength, where the
        parabola is lowest, and gain, by how much the loss is lower there. These two are nan if the
        curvature is not above 0.
        """
        import pandas as pd

        # A curvature is that of a patch at any strength.
        rows, labels = [], patch_labels(self.patches, but=["strength"])
        for number, patch in enumerate(self.patches):
            for place, scope in enumerate(self.scopes):
                interval = self._interval(number, place, level, seed)
                total = self.counts[:, place].sum()
                slope = float(self.slopes[:, place, number].sum() / total) if total else math.nan
                error = float(self.errors[:, place, number].sum() / total) if total else math.nan
                curved = interval.estimate if interval.estimate > 0 else math.nan
                rows.append(
                    {
                        "patch": number,
                        "label": labels[number],
                        "layer": patch.layer,
                        "source": name_of(patch.source),
                        "mode": name_of(patch.mode),
                        "embedding": patch.embedding,
                        "scope": scope,
                        "slope": slope,
                        "curvature": interval.estimate,
                        "curvature_low": interval.low,
                        "curvature_high": interval.high,
                        "n": interval.n,
                        "error": error,
                        "best_strength": -slope / curved,
                        "gain": slope**2 / (2 * curved),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, *, theme: "ThemeName" = "light") -> "go.Figure":
        """The curvatures of `to_dataframe` with 95% intervals, one row per scope and patch.

        Patches are named by what differs among them. `theme` is `"light"` or `"dark"`.

        Raises `ValueError` for an unknown theme.
        """
        return draw_by_scope(
            self.to_dataframe(),
            "curvature",
            title="Second derivative of the loss in the strength of a patch, at strength 0",
            x_title="nats a token per squared unit of strength",
            theme=theme,
        )

    def of(
        self, patch: NextTokenPatch, *, scope: str, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """The curvature of one patch, whatever its strength, with its interval over texts.

        Raises `ValueError` for a patch or scope that was not measured.
        """
        if scope not in self.scopes:
            raise ValueError(
                f"the curvature has no scope {scope!r}; it has {', '.join(self.scopes)}"
            )
        changed = [set(differing(one, patch, _COMPARED)) for one in self.patches]
        if set() in changed:
            return self._interval(changed.index(set()), self.scopes.index(scope), level, seed)
        if any(names <= _PLACES for names in changed):
            raise ValueError(
                "the curvature of this patch was measured at other positions: make the patch with "
                "SlopeMap.patch, which has those of the map, and give it to li.curvature"
            )
        raise ValueError(
            f"the curvature of this patch was not measured: {patch}; give it to li.curvature"
        )

    def _interval(self, patch: int, scope: int, level: float, seed: int) -> Interval:
        return mean_interval(
            self.curvatures[:, scope, patch],
            self.counts[:, scope],
            rng=np.random.default_rng(seed),
            level=level,
        )
