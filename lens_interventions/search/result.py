"""The result of a search: real tokens, their likelihood, and the cost of finding them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from .._summary import summary
from ..drawing.curves import Curve, draw_curves
from ..drawing.theme import ThemeName

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class SequenceSearch:
    """Sequences that a search found, the best of each restart, as tensors on the CPU.

    Likelihoods come from a last run on whole texts of real tokens, without a cache or
    distributions.

    Attributes:
        tokens: `[restart, new]`, the sequences, the best by the objective first.
        texts: each sequence as text; None without a tokenizer.
        log_probs: `[restart, text]`, the log-probability of each searched token and then of those
            of the ending, in nats.
        values: `[restart]`, the objective of each sequence.
        evaluations: how many forward tokens the search took. Each token that goes through the model
            counts 1, and 3 if the objective is differentiated. The prompt, which runs once, and the
            last run do not count.
        history: a row for each restart and scoring of real tokens: evaluations so far, phase
            ("start", "ascent" or "swaps"), restart, value of the objective, best of all so far.
        settings: the settings of the search.
    """

    tokens: Int[Tensor, "restart new"]
    texts: tuple[str, ...] | None
    log_probs: Float[Tensor, "restart text"]
    values: Float[Tensor, " restart"]
    evaluations: int
    history: "pd.DataFrame"
    settings: Mapping[str, Any]

    __repr__ = summary

    @property
    def log_likelihood(self) -> Float[Tensor, " restart"]:
        """Log-likelihood of the searched tokens after the prompt, in nats."""
        return self.log_probs[:, : self.tokens.shape[1]].sum(-1)

    def to_dataframe(self) -> "pd.DataFrame":
        """`history`: evaluations, phase, restart, value, best."""
        return self.history

    def plot(self, *, theme: ThemeName = "light") -> "go.Figure":
        """The objective over evaluations: the best so far, and in pale each restart.

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the theme is unknown.
        """
        named = isinstance(self.settings["objective"], str)
        unit = f"log-likelihood of the {self._part}, nats" if named else "objective"
        tried = [
            Curve(
                label=f"restart {restart}",
                unit=unit,
                x=rows["evaluations"].tolist(),
                values=rows["value"].to_numpy(np.float64),
                notes=rows["phase"].tolist(),
                colour=1 + place,
                faint=True,
            )
            for place, (restart, rows) in enumerate(self.history.groupby("restart"))
        ]
        best = Curve(
            label="best so far",
            unit=unit,
            x=self.history["evaluations"].tolist(),
            values=self.history["best"].to_numpy(np.float64),
            notes=self.history["phase"].tolist(),
        )
        return draw_curves(
            [best, *tried],  # where a restart is the best, its thin line lies on the thick one
            x_title="model evaluations, forward tokens",
            title=f"Search for the likeliest {self._part}" if named else "Search for a sequence",
            subtitle=f"Method: {self.settings['method']}.",
            theme=theme,
        )

    @property
    def _part(self) -> str:
        return "ending" if self.settings["objective"] == "ending" else "sequence"
