"""Losses under patches, with each text's share."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ..._summary import summary
from ...measures.intervals import mean_intervals
from ..patch import NextTokenPatch
from ..patch_labels import patch_labels

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ...drawing.theme import ThemeName


@dataclass(frozen=True, eq=False)
class PatchLoss:
    """Nats of the predictions of each text, with and without patches.

    Attributes:
        losses: `[text, scope, patch]`, the sum of each text's nats under each patch.
        clean: `[text, scope]`, their sum without a patch.
        counts: `[text, scope]`, how many predictions the sums are over.
        patches: the patches along the axis.
        scopes: the names along the axis.
    """

    losses: Float[np.ndarray, "text scope patch"]
    clean: Float[np.ndarray, "text scope"]
    counts: Float[np.ndarray, "text scope"]
    patches: tuple[NextTokenPatch, ...]
    scopes: tuple[str, ...]

    __repr__ = summary

    def to_dataframe(
        self, *, minus: int | None = None, level: float = 0.95, seed: int = 0
    ) -> "pd.DataFrame":
        """One row per patch and scope.

        Columns: patch (its number), label (what tells it from the others), scope; loss in nats per
        predicted token, loss_low and loss_high, the ends of its interval at confidence `level`;
        clean, the loss without a patch; difference, difference_low and difference_high, the loss
        minus that without a patch, or under the patch whose number is `minus`; predictions, the
        number of predicted tokens; and n, the number of texts. Intervals resample texts, and a
        difference is paired.

        Raises `ValueError` if there is no patch of the number `minus`.
        """
        import pandas as pd

        if isinstance(minus, bool) or (minus is not None and minus not in range(len(self.patches))):
            raise ValueError(
                f"minus must be a patch's number, from 0 to {len(self.patches) - 1}; got {minus!r}"
            )
        reference = self.clean if minus is None else self.losses[:, :, minus]
        rows = []
        for place, scope in enumerate(self.scopes):
            counts, totals = self.counts[:, place], self.losses[:, place].T
            predicted = counts.sum()
            losses, differences = (
                mean_intervals(
                    each,
                    np.broadcast_to(counts, each.shape),
                    rng=np.random.default_rng(seed),
                    level=level,
                )
                for each in (totals, totals - reference[:, place])
            )
            for number, label in enumerate(patch_labels(self.patches)):
                loss, difference = losses[number], differences[number]
                rows.append(
                    {
                        "patch": number,
                        "label": label,
                        "scope": scope,
                        "loss": loss.estimate,
                        "loss_low": loss.low,
                        "loss_high": loss.high,
                        "clean": self.clean[:, place].sum() / predicted if predicted else math.nan,
                        "difference": difference.estimate,
                        "difference_low": difference.low,
                        "difference_high": difference.high,
                        "predictions": int(predicted),
                        "n": difference.n,
                    }
                )
        rows.sort(key=lambda row: row["patch"])  # stable, so scopes keep their order
        return pd.DataFrame(rows)

    def plot(
        self, *, minus: int | None = None, seed: int = 0, theme: "ThemeName" = "light"
    ) -> "go.Figure":
        """The differences of `to_dataframe` with 95% intervals, one row per scope and patch.

        Patches are named by what differs among them. `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if there is no patch of the number `minus`, or no other one, or for an
        unknown theme.
        """
        frame = self.to_dataframe(minus=minus, seed=seed)
        if minus is not None and len(self.patches) == 1:
            raise ValueError("there is one patch, and no other to compare with it: leave out minus")
        frame = frame[frame["patch"] != minus].sort_values("scope", key=self._places, kind="stable")
        names = patch_labels(self.patches)
        reference = "without a patch" if minus is None else f"under {names[minus]}"
        return draw_by_scope(
            frame,
            "difference",
            title=f"Loss minus that {reference}",
            x_title="nats a token (below 0 is better)",
            theme=theme,
        )

    def _places(self, scopes: "pd.Series") -> "pd.Series":
        return scopes.map(self.scopes.index)


def draw_by_scope(
    frame: "pd.DataFrame", column: str, *, title: str, x_title: str, theme: "ThemeName"
) -> "go.Figure":
    """A column of a table of scopes and patches, with its 95% intervals over texts."""
    from ...drawing.error_bars import OVER_TEXTS, draw_contrasts

    return draw_contrasts(
        frame[["n"]].assign(
            estimate=frame[column], low=frame[f"{column}_low"], high=frame[f"{column}_high"]
        ),
        labels=(frame["scope"].str.replace("_", " ") + ": " + frame["label"]).tolist(),
        title=title,
        subtitle=OVER_TEXTS,
        x_title=x_title,
        theme=theme,
    )
