"""What each statistic is called, its unit, and how its numbers become colours.

In every figure bright is close, likely or certain: to the output, of the token, about the guess.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from ...drawing.colours import ColourScale

Unit = Literal["logit", "rank", "nats", "log-prob"]

# Where the colours of ranks and divergences stop, as in the post.
RANK_LIMIT, INPUT_RANK_LIMIT, KL_LIMIT = 100.0, 1000.0, 30.0
LOG_PROB_LIMIT = -20.0
_RANK_TICKS = (0, 1, 3, 10, 30, 100, 300, 1000)


@dataclass(frozen=True)
class Scale:
    """How one statistic is shown.

    Attributes:
        title: what it is; `{compare}` and `{token}` stand for the point compared with and for the
            watched token.
        unit: of the numbers. Ranks are zero-based, divergences, entropies and log-probs in nats.
        palette: of the colours.
        low, high: where the colours stop; None for the smallest or largest number shown.
        show_input: whether the figure has the input's row unless told otherwise.
    """

    title: str
    unit: Unit
    palette: str
    low: float | None = None
    high: float | None = None
    show_input: bool = False

    @property
    def bright_is_high(self) -> bool:
        """Whether large numbers are the bright ones."""
        return self.unit in ("logit", "log-prob")

    @property
    def unit_title(self) -> str:
        """The unit with what a reader needs to know about it."""
        return "rank (0 = top guess)" if self.unit == "rank" else self.unit

    def position(self, values: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
        """Where values stand on the colour axis: ranks on a logarithmic one."""
        return np.log10(1 + values) if self.unit == "rank" else values

    def colours(self, values: Float[np.ndarray, "*cell"]) -> ColourScale:
        """The colour scale over the positions of `values`, which it spans where it is open."""
        shown = values[np.isfinite(values)]
        low = self.low if self.low is not None else float(shown.min()) if shown.size else 0.0
        high = self.high if self.high is not None else float(shown.max()) if shown.size else 1.0
        low, high = self.position(np.array([low, max(high, low)])).tolist()
        return ColourScale(self.palette, low, high, reverse=not self.bright_is_high)

    def ticks(
        self, scale: ColourScale, values: Float[np.ndarray, "*cell"]
    ) -> tuple[list[float], list[str]]:
        """Places and texts of the colour bar's ticks, marked where colours are cut off."""
        if self.unit == "rank":
            at = [rank for rank in _RANK_TICKS if math.log10(1 + rank) <= scale.high + 1e-9]
            places = [math.log10(1 + rank) for rank in at]
            texts = [f"{rank:,}" for rank in at]
        else:
            places = round_steps(scale.low, scale.high)
            texts = [f"{place:g}".replace("-", "−") for place in places]
        shown = self.position(values[np.isfinite(values)])
        if shown.size and shown.max() > scale.high and math.isclose(places[-1], scale.high):
            texts[-1] = f"≥ {texts[-1]}"
        if shown.size and shown.min() < scale.low and math.isclose(places[0], scale.low):
            texts[0] = f"≤ {texts[0]}"
        return places, texts


def round_steps(low: float, high: float) -> list[float]:
    """Up to eight round numbers between `low` and `high`; only `low` where they are the same."""
    if high <= low:
        return [low]
    magnitude = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * magnitude) <= 7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(round(i * step, 10)) for i in range(first, last + 1)]


def _divergence(reference: str, *, title: str = "KL({} ‖ layer)", limit: float = KL_LIMIT) -> Scale:
    return Scale(title.format(reference), "nats", "magma", 0.0, limit, show_input=True)


def _rank(of: str, *, limit: float = RANK_LIMIT, show_input: bool = False) -> Scale:
    return Scale(f"Rank of {of}", "rank", "cividis", 0.0, limit, show_input)


def _log_prob(of: str, *, show_input: bool = False) -> Scale:
    return Scale(f"Log-probability of {of}", "log-prob", "viridis", LOG_PROB_LIMIT, 0.0, show_input)


_FINAL, _INPUT, _NEXT = "the final top guess", "the input token", "the next token"
_COMPARE, _TOKEN = "the top guess at {compare}", "{token}"
_REVERSE, _JS = "KL(layer ‖ {})", "Jensen-Shannon divergence of {} and layer"
_JS_LIMIT = math.log(2)

SCALES: dict[str, Scale] = {
    "top1": Scale("Top guess of each layer", "logit", "viridis"),
    "final_rank": _rank(_FINAL),
    "input_rank": _rank(_INPUT, limit=INPUT_RANK_LIMIT, show_input=True),
    "next_rank": _rank(_NEXT, limit=INPUT_RANK_LIMIT),
    "compare_rank": _rank(_COMPARE),
    "watched_rank": _rank(_TOKEN, limit=INPUT_RANK_LIMIT),
    "final_log_prob": _log_prob(_FINAL),
    "input_log_prob": _log_prob(_INPUT, show_input=True),
    "next_log_prob": _log_prob(_NEXT),
    "compare_log_prob": _log_prob(_COMPARE),
    "watched_log_prob": _log_prob(_TOKEN),
    "entropy": Scale("Entropy of each layer's distribution", "nats", "magma", 0.0),
    "log_normalizer": Scale("Log of the sum of the exponentials of all logits", "nats", "viridis"),
    "kl_final": _divergence("final"),
    "kl_input": _divergence("input"),
    "kl_compare": _divergence("{compare}"),
    "kl_final_reverse": _divergence("final", title=_REVERSE),
    "kl_input_reverse": _divergence("input", title=_REVERSE),
    "kl_compare_reverse": _divergence("{compare}", title=_REVERSE),
    "js_final": _divergence("final", title=_JS, limit=_JS_LIMIT),
    "js_input": _divergence("input", title=_JS, limit=_JS_LIMIT),
    "js_compare": _divergence("{compare}", title=_JS, limit=_JS_LIMIT),
}
