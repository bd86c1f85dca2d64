"""A linear write of the next token, and the slopes of fitted ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .._summary import summary
from ..drawing.table_curves import Axes, curves
from ..drawing.theme import ThemeName
from ..intervention.patch import NextTokenPatch
from ..intervention.site import PatchSite
from ..measures.interval_table import interval_rows
from ..model.kinds import ReadableModel
from ..model.same_weights import weights_mismatch

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

WRITES = ("without", "with")
FREE, INCREMENT = "free", "increment"
"""What tables call the free write, and the write with the next token minus that without it."""


@dataclass(frozen=True, eq=False)
class LinearWrite:
    """A mode: `r + a |r| (features @ matrix)`, for the source "true" and the embedding W_E.

    The features are the embeddings of `x[i+1]` and `x[i]`, in units of a typical embedding's
    length, the residual divided by its own length, and 1.

    Attributes:
        matrices: `[feature, d_model]` by layer. On the texts of the fit, writes are on average
            (root mean square) as long as the residual.
        unit: the typical length of an embedding.
        first_position: positions below it are not written to.
        fingerprint: hash of the weights that it was fitted for.
    """

    matrices: Mapping[int, Float[Tensor, "feature d_model"]]
    unit: float
    first_position: int
    fingerprint: str

    reads_lens: ClassVar[bool] = False

    # What labels and tables call a mode, as they do a function.
    __name__ = "linear write"

    __repr__ = summary

    def __call__(self, site: PatchSite, e: Tensor, _s: Tensor, a: float) -> Tensor:
        """The patched rows; see `modes`."""
        matrix = self.matrices[site.layer].to(site.resid)
        phi = features(e, site.embedding(site.current_tokens), site.resid, self.unit)
        patched = site.resid + a * site.resid.norm(dim=-1, keepdim=True) * (phi @ matrix)
        return torch.where((site.position < self.first_position)[..., None], site.resid, patched)

    def require_fits(self, bridge: ReadableModel, patch: NextTokenPatch) -> None:
        """Raise `ValueError` unless the write may be used in this patch of this bridge."""
        other = weights_mismatch(
            bridge, self.fingerprint, "write", {}, "fit one with linear_ceiling"
        )
        if other is not None:
            raise ValueError(
                f"this write was fitted for weights {self.fingerprint}, the bridge is "
                f"{bridge.cfg.model_name} with {other}"
            )
        if (patch.source, patch.embedding) != ("true", "W_E"):
            raise ValueError(
                "this write reads the embedding 'W_E' of the source 'true', but the patch has "
                f"{patch.embedding!r} and {patch.source!r}: use LinearCeiling.patch"
            )
        others = sorted(set(patch.layers) - set(self.matrices))
        if others:
            raise ValueError(
                f"this write was fitted for layers {sorted(self.matrices)}, but the patch has "
                f"{others}"
            )


@dataclass(frozen=True, eq=False)
class LinearCeiling:
    """Slopes of fitted linear writes on held-out texts, nats per predicted token.

    Attributes:
        totals: `[text, write, layer]`, d(sum of a text's nats)/d(strength) of the write fitted
            without the next token, of the write fitted with it, and of a free write. At strength 1
            each is as long as the residual. The free write follows the gradient of its own position
            downwards. That gradient encodes all that comes later, so this is a ceiling for writes
            of any kind, and not a write that could be learned.
        counts: `[text]`, predictions.
        layers: the names along the last axis.
        writes: the fitted writes, without the next token and with it.
        ridges: `[fitted, layer]`, the ridge of each of the two fitted writes that was best on texts
            kept out of the fit.
    """

    totals: Float[np.ndarray, "text write layer"]
    counts: Float[np.ndarray, " text"]
    layers: tuple[int, ...]
    writes: tuple[LinearWrite, LinearWrite]
    ridges: Float[np.ndarray, "fitted layer"]

    __repr__ = summary

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pd.DataFrame":
        """One row per layer and write: layer, write, estimate, low, high, n.

        `write` is "without" the next token, "with" it, "free", or "increment", which is "with"
        minus "without", paired by text. The increment is negative if the next token lets a linear
        write lower the loss further.
        """
        import pandas as pd

        without, with_news, free = np.moveaxis(self.totals, 1, 0)
        rows = []
        for name, totals in (
            ("without", without),
            ("with", with_news),
            (INCREMENT, with_news - without),
            (FREE, free),
        ):
            places = [{"layer": layer, "write": name} for layer in self.layers]
            rows += interval_rows(places, totals.T, self.counts, level=level, seed=seed)
        return pd.DataFrame(rows)

    def plot(self, *, theme: ThemeName = "light") -> "go.Figure":
        """The fitted writes by layer, with 95% intervals; the free write is in a view of its own.

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` for an unknown theme.
        """
        return draw_ceilings({"held-out texts": self.to_dataframe()}, theme=theme)

    def patch(self, layer: int, *, strength: float, write: str = "with") -> NextTokenPatch:
        """A fitted write as a patch, which can be run or given to `li.curvature`.

        Raises `ValueError` for a layer or write that was not fitted.
        """
        if layer not in self.layers or write not in WRITES:
            raise ValueError(
                f"writes were fitted {' and '.join(WRITES)} the next token at layers "
                f"{list(self.layers)}, not {write!r} at {layer}"
            )
        mode = self.writes[WRITES.index(write)]
        return NextTokenPatch(layer=layer, strength=strength, mode=mode)


def draw_ceilings(
    tables: Mapping[str, "pd.DataFrame"], *, theme: ThemeName = "light"
) -> "go.Figure":
    """Slopes of the fitted writes by layer, with two views for each table; see `to_dataframe`.

    Raises `ValueError` for an unknown theme.
    """
    views = {}
    for name, rows in tables.items():
        views[name] = rows[rows["write"] != FREE]
        views[f"{name}: the free write, a ceiling"] = rows[rows["write"] == FREE]
    return curves(
        views,
        Axes("layer", "estimate", "write", "layer", "nats per unit of strength"),
        title="Slope of the best linear write on held-out texts, with and without the next token",
        theme=theme,
    )


def features(following: Tensor, here: Tensor, resid: Tensor, unit: float) -> Tensor:
    """The features of `LinearWrite`, from the embeddings of two tokens and the residual."""
    direction = torch.nn.functional.normalize(resid, dim=-1)
    return torch.cat(
        [following / unit, here / unit, direction, torch.ones_like(resid[..., :1])], dim=-1
    )
