"""The objectives of a search, for real tokens and for distributions over tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from ..lens.distributions import log_probs_of
from ..model.precision import at_least_float32

Objective = Callable[[Tensor, Tensor], Tensor]
"""From logits `[batch, row, d_vocab]` and tokens `[batch, pos, d_vocab]` to `[batch]`."""

ObjectiveName = Literal["likelihood", "ending"]

# The log-likelihood of a token that the unembedding excludes is minus infinity, which a weight of 0
# would turn into nan.
_LEAST_LOG_PROB = -1e4


@dataclass(frozen=True)
class PartLikelihood:
    """The log-likelihood of the tokens from `start` to `rows` under the model, in nats.

    Row j of the logits predicts token j of the text. For distributions, it is the expected
    log-likelihood if each token is drawn independently.

    Attributes:
        start: the first token that counts.
        rows: how many predictions are needed.
    """

    start: int
    rows: int

    def of_weights(
        self,
        logits: Float[Tensor, "batch row d_vocab"],
        weights: Float[Tensor, "batch pos d_vocab"],
    ) -> Float[Tensor, " batch"]:
        """Expected log-likelihood."""
        # As in `log_probs_of`, which half precision would not agree with.
        wide = at_least_float32(logits.dtype)
        log_probs = logits[:, self.start : self.rows].log_softmax(-1, dtype=wide)
        log_probs = log_probs.clamp(min=_LEAST_LOG_PROB)
        return (weights[:, self.start : self.rows] * log_probs).sum((-2, -1))

    def of_tokens(
        self, logits: Float[Tensor, "batch row d_vocab"], tokens: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, " batch"]:
        """Log-likelihood."""
        part = slice(self.start, self.rows)
        return log_probs_of(logits[:, part], tokens[:, part]).sum(-1)


@dataclass(frozen=True)
class GivenObjective:
    """An objective that the user defines.

    Attributes:
        function: from logits and tokens to a number for each text.
        rows: for how many predictions it gets the logits.
    """

    function: Objective
    rows: int

    def of_weights(
        self,
        logits: Float[Tensor, "batch row d_vocab"],
        weights: Float[Tensor, "batch pos d_vocab"],
    ) -> Float[Tensor, " batch"]:
        """The user's number for each text; the function gets the weights in the logits' dtype.

        Raises `ValueError` if the function returns another shape, or what is not a number.
        """
        values = self.function(logits, weights.to(logits.dtype))
        if not isinstance(values, Tensor) or values.shape != (len(logits),):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the objective returned {got}; it should turn logits {tuple(logits.shape)} and "
                f"tokens {tuple(weights.shape)} into one number for each of {len(logits)} texts"
            )
        if values.isnan().any():
            raise ValueError(f"the objective returned NaN for {int(values.isnan().sum())} texts")
        return values

    def of_tokens(
        self, logits: Float[Tensor, "batch row d_vocab"], tokens: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, " batch"]:
        """The same for real tokens, as one-hot rows."""
        return self.of_weights(logits, one_hot(tokens, logits.shape[-1], logits.dtype))


Maximised = PartLikelihood | GivenObjective


def maximised(objective: ObjectiveName | Objective, n_tokens: int, n_ending: int) -> Maximised:
    """The objective of a search for `n_tokens`, which `n_ending` given tokens follow.

    Raises `ValueError` for an unknown name, and if the ending is missing or of no use.
    """
    if callable(objective):
        return GivenObjective(objective, n_tokens + n_ending + 1)
    if objective not in ("likelihood", "ending"):
        raise ValueError(
            f"objective must be 'likelihood', 'ending' or f(logits, tokens), got {objective!r}"
        )
    if (objective == "ending") != (n_ending > 0):
        raise ValueError(
            "objective='ending' needs the tokens that are to become likely, ending=' plasma.'"
            if objective == "ending"
            else "objective='likelihood' does not use an ending: leave it out, or choose "
            "objective='ending'"
        )
    start = n_tokens if objective == "ending" else 0
    return PartLikelihood(start, n_tokens + n_ending)


def one_hot(
    tokens: Int[Tensor, "*row"], d_vocab: int, dtype: torch.dtype
) -> Float[Tensor, "*row d_vocab"]:
    """Tokens as distributions."""
    return functional.one_hot(tokens, d_vocab).to(dtype)
