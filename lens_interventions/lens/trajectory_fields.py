"""The fields of a trajectory, and the statistics that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .statistics import STATISTICS, related


@dataclass(frozen=True, eq=False)
class TrajectoryFields:
    """The fields of a `Trajectory`, whose docstring explains them."""

    points: tuple[str, ...]
    tokens: Int[Tensor, "batch pos"]
    next_tokens: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    vocab: Mapping[int, str] = field(repr=False)
    top_ids: Int[Tensor, "point batch pos k"]
    top_logits: Float[Tensor, "point batch pos k"]
    log_normalizer: Float[Tensor, "point batch pos"]
    entropy: Float[Tensor, "point batch pos"]
    final_rank: Int[Tensor, "point batch pos"]
    final_log_prob: Float[Tensor, "point batch pos"]
    input_rank: Int[Tensor, "point batch pos"]
    input_log_prob: Float[Tensor, "point batch pos"]
    next_rank: Int[Tensor, "point batch pos"]
    next_log_prob: Float[Tensor, "point batch pos"]
    compare_rank: Int[Tensor, "point batch pos"]
    compare_log_prob: Float[Tensor, "point batch pos"]
    kl_final: Float[Tensor, "point batch pos"]
    kl_input: Float[Tensor, "point batch pos"]
    kl_compare: Float[Tensor, "point batch pos"]
    watched: tuple[int, ...] = ()
    watched_rank: Int[Tensor, "point batch pos watched"] | None = None
    watched_log_prob: Float[Tensor, "point batch pos watched"] | None = None
    kl_final_reverse: Float[Tensor, "point batch pos"] | None = None
    kl_input_reverse: Float[Tensor, "point batch pos"] | None = None
    kl_compare_reverse: Float[Tensor, "point batch pos"] | None = None
    js_final: Float[Tensor, "point batch pos"] | None = None
    js_input: Float[Tensor, "point batch pos"] | None = None
    js_compare: Float[Tensor, "point batch pos"] | None = None
    compare_with: str = "final_post"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def top_log_probs(self) -> Float[Tensor, "point batch pos k"]:
        """Log-probabilities of the likeliest tokens."""
        return self.top_logits - self.log_normalizer[..., None]

    @property
    def agrees_final(self) -> Bool[Tensor, "point batch pos"]:
        """Whether the last point's top guess is the point's, or ties with it; False at padding."""
        return self.statistic("agrees_final")

    @property
    def agrees_next(self) -> Bool[Tensor, "point batch pos"]:
        """Whether the token that followed is the point's top guess, or ties with it.

        False where no token followed.
        """
        return self.statistic("agrees_next")

    @property
    def agrees_input(self) -> Bool[Tensor, "point batch pos"]:
        """Whether the position's own token is the point's top guess, or ties with it.

        False at padding.
        """
        return self.statistic("agrees_input")

    def statistic(self, name: str) -> Tensor:
        """A statistic by its name: a field above, `agrees_...`, or `top1`, the first top logit.

        Raises `ValueError` if no statistic has that name, or if it was not computed.
        """
        if name not in STATISTICS:
            raise ValueError(f"unknown statistic {name!r}; there are {list(STATISTICS)}")
        statistic = STATISTICS[name]
        if statistic.kind == "agrees":
            return (self.statistic(related("rank", statistic.target).name) == 0) & self.mask
        value = self.top_logits[..., 0] if name == "top1" else getattr(self, name)
        if value is None:
            raise ValueError(statistic.how_to_ask)
        return value

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the trajectory holds, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
