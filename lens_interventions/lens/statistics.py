"""The table of statistics: all that reading, means, figures and docs know about each of them.

To add a statistic, write its row in `STATISTICS`, its formula in `reduction` and a field of
`Trajectory`. One that follows from others, as agreements follow from ranks, needs no field.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ..drawing.scales import Scale

Target = Literal["final", "input", "next", "compare", "watched"]
Divergence = Literal["kl", "kl_reverse", "js"]
Kind = Literal["rank", "log_prob", "agrees"] | Divergence
Unit = Literal["token", "logit", "rank", "nats", "log-prob", "share"]

# The values at which the colours of ranks and divergences stop, as in the post.
_RANK_LIMIT, _INPUT_RANK_LIMIT, _KL_LIMIT = 100.0, 1000.0, 30.0
_LOG_PROB_LIMIT = -20.0

_TOKENS: dict[Target, str] = {
    "final": "the final top guess",
    "input": "the input token",
    "next": "the next token",
    "compare": "the top guess at {compare}",
    "watched": "{token}",
}
_POINTS: dict[Target, str] = {"final": "final", "input": "input", "compare": "{compare}"}
# Name, title and limit.
_DIVERGENCES: dict[Divergence, tuple[str, str, float]] = {
    "kl": ("kl_{}", "KL({} ‖ layer)", _KL_LIMIT),
    "kl_reverse": ("kl_{}_reverse", "KL(layer ‖ {})", _KL_LIMIT),
    "js": ("js_{}", "Jensen-Shannon divergence of {} and layer", math.log(2)),
}


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """The properties of one statistic.

    Attributes:
        name: the name of its field in `Trajectory`, or the name for `Trajectory.statistic`.
        kind: how it relates the point to `target`; None for a property of the point alone.
        target: the token that is ranked, or the point that is compared with.
        title: its title. `{compare}` and `{token}` stand for the point `compare_with` and for the
            watched token.
        hover: its label in the hover of a cell; empty if it is not shown there.
        unit: the unit of its values. Ranks are zero-based; log-probs, entropies and divergences are
            in nats.
        palette: its colours; None if it has no figure over layers and tokens.
        low, high: the values at which the colours stop; None for the smallest or largest value
            shown that is not far out.
        show_input: whether its figure has the input's row unless told otherwise.
        averaged: whether its mean over positions and texts is meaningful.
        held: whether a trajectory holds it, or derives it from other statistics.
    """

    name: str
    kind: Kind | None = None
    target: Target | None = None
    title: str
    hover: str = ""
    unit: Unit
    palette: str | None = None
    low: float | None = None
    high: float | None = None
    show_input: bool = False
    averaged: bool = False
    held: bool = True

    @property
    def scale(self) -> Scale:
        """Its colours, for a statistic that has a palette."""
        assert self.palette is not None
        return Scale(self.unit, self.palette, self.low, self.high)

    @property
    def missing(self) -> float | int | bool:
        """Its value where none exists: at padding, and for the next token at a text's end."""
        if self.unit == "share":
            return False
        return -1 if self.unit in ("rank", "token") else math.nan

    @property
    def mean_name(self) -> str:
        """The name of its mean; for ranks, of the mean logarithm of 1 + rank."""
        return f"log10_{self.name}" if self.unit == "rank" else self.name

    @property
    def divergences(self) -> tuple[Divergence, ...]:
        """The `divergences` of `logit_lens` that compute it, if it is one."""
        return ("kl", self.kind) if self.kind in ("kl_reverse", "js") else ("kl",)

    @property
    def how_to_ask(self) -> str:
        """The message for a trajectory without it; some statistics are computed only on request."""
        option = "watch=" if self.target == "watched" else f"divergences={self.divergences}"
        return f"{self.name} was not computed: ask for it with {option} of logit_lens"


def _rank(
    target: Target, *, limit: float = _RANK_LIMIT, show_input: bool = False, averaged: bool = True
) -> Statistic:
    return Statistic(
        name=f"{target}_rank",
        kind="rank",
        target=target,
        title=f"Rank of {_TOKENS[target]}",
        hover=f"rank of {_TOKENS[target].removeprefix('the ')}",
        unit="rank",
        palette="cividis",
        low=0.0,
        high=limit,
        show_input=show_input,
        averaged=averaged,
    )


def _log_prob(target: Target, *, show_input: bool = False, averaged: bool = True) -> Statistic:
    return Statistic(
        name=f"{target}_log_prob",
        kind="log_prob",
        target=target,
        title=f"Log-probability of {_TOKENS[target]}",
        unit="log-prob",
        palette="viridis",
        low=_LOG_PROB_LIMIT,
        high=0.0,
        show_input=show_input,
        averaged=averaged,
    )


def _divergence(kind: Divergence, target: Target, *, averaged: bool = False) -> Statistic:
    name, title, limit = _DIVERGENCES[kind]
    return Statistic(
        name=name.format(target),
        kind=kind,
        target=target,
        title=title.format(_POINTS[target]),
        hover=title.format(_POINTS[target]),
        unit="nats",
        palette="magma",
        low=0.0,
        high=limit,
        show_input=True,
        averaged=averaged,
    )


def _agreement(target: Target) -> Statistic:
    return Statistic(
        name=f"agrees_{target}",
        kind="agrees",
        target=target,
        title=f"Top guess is {_TOKENS[target]}",
        unit="share",
        averaged=True,
        held=False,
    )


_ROWS = (
    Statistic(
        name="top1",
        title="Top guess of each layer",
        hover="logit of top guess",
        unit="logit",
        palette="viridis",
        held=False,
    ),
    _rank("final"),
    _rank("input", limit=_INPUT_RANK_LIMIT, show_input=True),
    _rank("next", limit=_INPUT_RANK_LIMIT),
    _rank("compare", averaged=False),
    _rank("watched", limit=_INPUT_RANK_LIMIT, averaged=False),
    _log_prob("final"),
    _log_prob("input", show_input=True),
    _log_prob("next"),
    _log_prob("compare", averaged=False),
    _log_prob("watched", averaged=False),
    Statistic(
        name="entropy",
        title="Entropy of each layer's distribution",
        hover="entropy",
        unit="nats",
        palette="magma",
        low=0.0,
        averaged=True,
    ),
    _divergence("kl", "final", averaged=True),
    _divergence("kl", "input", averaged=True),
    _divergence("kl", "compare"),
    _divergence("kl_reverse", "final"),
    _divergence("kl_reverse", "input"),
    _divergence("kl_reverse", "compare"),
    _divergence("js", "final"),
    _divergence("js", "input"),
    _divergence("js", "compare"),
    Statistic(
        name="log_normalizer",
        title="Log of the sum of the exponentials of all logits",
        unit="nats",
        palette="viridis",
    ),
    _agreement("final"),
    _agreement("next"),
    _agreement("input"),
    Statistic(name="top_ids", title="Likeliest tokens", unit="token"),
    Statistic(name="top_logits", title="Logits of the likeliest tokens", unit="logit"),
)

STATISTICS: dict[str, Statistic] = {row.name: row for row in _ROWS}
"""Every statistic by its name, in the order in which they are listed and shown."""


def drawn() -> dict[str, Statistic]:
    """Statistics that have a figure over layers and tokens, by name."""
    return {name: row for name, row in STATISTICS.items() if row.palette is not None}


def averaged() -> dict[str, Statistic]:
    """Statistics whose mean is meaningful, by the name of the mean."""
    return {row.mean_name: row for row in STATISTICS.values() if row.averaged}


def of_target(target: Target) -> list[Statistic]:
    """Statistics of one target that a trajectory holds."""
    return [row for row in STATISTICS.values() if row.target == target and row.held]


def related(kind: Kind | None, target: str | None) -> Statistic:
    """The statistic of this kind and target."""
    (row,) = (r for r in STATISTICS.values() if (r.kind, r.target) == (kind, target))
    return row
