"""The loss with continuations hidden, without and with patches, with each text's share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..._summary import summary
from ...drawing.labels import markup
from ...measures.interval_table import interval_table
from ..patch import NextTokenPatch
from ..sources import minus_controls

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ...drawing.theme import ThemeName


@dataclass(frozen=True, eq=False)
class Rescue:
    """Nats of predictions that do not see what followed earlier occurrences of their token.

    Attributes:
        counts: `[text, scope]`, how many predictions the sums are over.
        clean: `[text, scope]`, the sum of each text's nats with nothing hidden and no patch.
        hidden: `[text, scope, row]`, that sum with continuations hidden from each row's lowest
            layer up, and no patch.
        patched: `[text, scope, row, through, source]`, that sum with continuations hidden and a
            patch.
        patches: the patch of each source, for each row.
        sources, through, scopes: the names along the axes.
    """

    counts: Float[np.ndarray, "text scope"]
    clean: Float[np.ndarray, "text scope"]
    hidden: Float[np.ndarray, "text scope row"]
    patched: Float[np.ndarray, "text scope row through source"]
    patches: tuple[tuple[NextTokenPatch, ...], ...]
    sources: tuple[str, ...]
    through: tuple[str, ...]
    scopes: tuple[str, ...]

    __repr__ = summary

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pd.DataFrame":
        """One row per mean loss and difference of two, in nats per predicted token.

        Columns: layer, the lowest patched; through; condition, `"clean"`, `"hidden"` or the name of
        a source; minus, empty for a loss, else the condition that it is compared with, paired by
        text; scope; estimate, low, high and the n texts of the interval at confidence `level`. A
        negative difference of a source and `"hidden"` is what the source rescues, `"clean"` minus
        `"hidden"` is all that could be rescued, and the true source minus a control is what the
        news is worth. `through` is empty if there is no patch.
        """
        return interval_table(self._totals(), level=level, seed=seed)

    def plot(self, *, scope: str | None = None, theme: "ThemeName" = "light") -> "go.Figure":
        """How each source changes the loss with continuations hidden, by layer, with intervals.

        A negative change is a rescue. The curve with nothing hidden shows all that could be
        rescued. A menu chooses what predictions read of the patched positions. `scope` chooses the
        predictions, by default those of the first scope. `theme` is `"light"` or `"dark"`.

        Raises `ValueError` for a scope that was not measured or an unknown theme.
        """
        from ...drawing.table_curves import Axes, curves

        if scope is not None and scope not in self.scopes:
            raise ValueError(f"there is no scope {scope!r}; there are {', '.join(self.scopes)}")
        scope = scope or self.scopes[0]
        frame = self.to_dataframe()
        frame = frame[(frame["scope"] == scope) & (frame["minus"] == "hidden")]
        frame = frame.assign(condition=frame["condition"].replace("clean", "nothing hidden"))
        words = {"both": "keys and values", "keys": "keys alone", "values": "values alone"}
        return curves(
            {
                f"through {words[way]}": frame[frame["through"].isin(["", way])]
                for way in self.through
            },
            Axes(
                x="layer",
                y="estimate",
                group="condition",
                x_title="layer of the patch, and from which continuations are hidden",
                y_title="change of the loss, nats per predicted token (below 0: a rescue)",
            ),
            title="Does a patch make up for a hidden continuation? Scope: "
            + markup(scope.replace("_", " ")),
            theme=theme,
        )

    def _totals(self) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
        """For each row of the table: its columns, the sums of each text, and their counts."""
        for s, scope in enumerate(self.scopes):
            for row, patches in enumerate(self.patches):
                bare = {"clean": self.clean[:, s], "hidden": self.hidden[:, s, row]}
                read: dict[str, dict[str, np.ndarray]] = {"": bare}
                for w, way in enumerate(self.through):
                    read[way] = dict(zip(self.sources, self.patched[:, s, row, w].T, strict=True))
                for way, losses in read.items():
                    for condition, minus, total in _compared(losses, bare["hidden"]):
                        place = {
                            "layer": patches[0].layers[0],
                            "through": way,
                            "condition": condition,
                            "minus": minus,
                            "scope": scope,
                        }
                        yield place, total, self.counts[:, s]


def _compared(
    losses: dict[str, np.ndarray], hidden: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Each loss, its difference from that with continuations hidden, and true minus controls."""
    for name, loss in losses.items():
        yield name, "", loss
        if name != "hidden":
            yield name, "hidden", loss - hidden
    yield from (("true", name, loss) for name, loss in minus_controls(losses))
