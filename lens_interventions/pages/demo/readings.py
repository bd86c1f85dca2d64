"""What several sections read, read once, and small helpers for their numbers."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from transformer_lens.model_bridge import TransformerBridge

from ...lens.aggregate import LensAggregate, lens_over
from ...lens.logit_lens import logit_lens
from ...lens.trajectory import Trajectory
from ...materials import prose
from ...plots import plot
from .texts import ABSTRACT, ABSTRACT_END

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN_TOKENS = 20  # of the abstract, as in the post's two figures of ten
PROSE_TEXTS, PROSE_TOKENS = 6, 64
CELL_WIDTH = 46.0  # pixels, so that 20 tokens fit the page


class Readings:
    """A bridge, and what the page's sections share."""

    def __init__(self, bridge: TransformerBridge) -> None:
        """Nothing is read before it is asked for."""
        self.bridge = bridge

    @cached_property
    def abstract(self) -> Trajectory:
        """The end of the GPT-3 abstract, all of which the model sees."""
        start = self.token_count(ABSTRACT.rstrip())
        return logit_lens(
            self.bridge, ABSTRACT + ABSTRACT_END, positions=slice(start, start + SHOWN_TOKENS)
        )

    @cached_property
    def prose(self) -> LensAggregate:
        """Means over short texts, without each text's first token, which is an outlier."""
        texts = [document.text for document in prose()[:PROSE_TEXTS]]
        return lens_over(
            self.bridge, texts, max_tokens=PROSE_TOKENS, positions=slice(1, None), progress=False
        )

    def abstract_map(self, statistic: str) -> "go.Figure":
        """A heat map of `abstract`, of every other layer, as in the post."""
        return plot(self.abstract, statistic, every=2, cell_width=CELL_WIDTH)

    def token_count(self, text: str) -> int:
        """How many tokens a text has, with a beginning-of-text token where the model wants one."""
        return int(self.bridge.to_tokens(text, truncate=False).shape[1])


def typical_rank(mean_log10: float) -> float:
    """The geometric mean of 1 + rank, less one."""
    return float(10**mean_log10) - 1


def log10_ranks(ranks: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """The decimal logarithm of 1 + rank; NaN for -1, which is no rank."""
    return np.log10(1 + np.where(ranks < 0, np.nan, ranks))


def middle(points: int) -> slice:
    """The second and third quarter of so many points."""
    return slice(points // 4, points - points // 4)


def count(rank: float) -> str:
    """A typical rank for reading: whole from 10 upwards."""
    return f"{rank:,.1f}" if rank < 10 else f"{rank:,.0f}"
