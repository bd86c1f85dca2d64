"""Next-token distributions of some rows, and the one that the others are compared with."""

from dataclasses import dataclass, fields

from jaxtyping import Float, Int
from torch import Tensor

from .distributions import expectation, js_divergence


@dataclass(frozen=True)
class Distribution:
    """One point's next-token distributions: logits, and what a first pass over them gives.

    `logits` may be in a buffer that the next distribution overwrites.
    """

    normalized: Float[Tensor, "row d_model"]
    logits: Float[Tensor, "row d_vocab"]
    top_ids: Int[Tensor, "row k"]
    top_logits: Float[Tensor, "row k"]
    log_normalizer: Float[Tensor, " row"]
    entropy: Float[Tensor, " row"]

    def of_rows(self, rows: slice) -> "Distribution":
        """The same for some of the rows."""
        return Distribution(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Reference:
    """A distribution that all points are compared with.

    KL(reference ‖ point) = log_normalizer(z) - E[z] - entropy(reference), z the point's logits and
    E the reference's expectation, is linear in z. With `z = scale * (W h + b)`, `E[z]` is a dot
    product of the normalized residual h with the reference's mean unembedding row: no further pass
    over the vocabulary, and a smaller rounding error where the divergence is large. Where logits
    are not linear in the residual, under a soft cap or in half precision, the probabilities
    themselves are kept.

    Attributes:
        distribution: the distribution, whose logits last if a divergence or a rank reads them.
        mean_row, mean_bias: `scale * E[W]` and `scale * E[b]`.
        probabilities: the probabilities, where there is no `mean_row`.
    """

    distribution: Distribution
    mean_row: Float[Tensor, "row d_model"] | None
    mean_bias: Float[Tensor, " row"] | None
    probabilities: Float[Tensor, "row d_vocab"] | None

    def of_rows(self, rows: slice) -> "Reference":
        """The same for some of the rows."""
        means = (self.mean_row, self.mean_bias, self.probabilities)
        of_rows = (None if mean is None else mean[rows] for mean in means)
        return Reference(self.distribution.of_rows(rows), *of_rows)

    def kl(self, point: Distribution) -> Float[Tensor, " row"]:
        """KL(reference ‖ point), nats."""
        kl = point.log_normalizer - self._mean_logit(point) - self.distribution.entropy
        return kl.clamp(min=0)

    def kl_reverse(self, point: Distribution) -> Float[Tensor, " row"]:
        """KL(point ‖ reference), nats."""
        own = self.distribution
        probabilities = point.logits.softmax(-1)
        # In float32 their sum is not quite 1.
        mean_logit = expectation(probabilities, own.logits) / probabilities.sum(-1)
        return (own.log_normalizer - mean_logit - point.entropy).clamp(min=0)

    def js(self, point: Distribution) -> Float[Tensor, " row"]:
        """The Jensen-Shannon divergence of reference and point, nats."""
        return js_divergence(self.distribution.logits, point.logits)

    def _mean_logit(self, point: Distribution) -> Float[Tensor, " row"]:
        """The reference's expectation of the point's logits."""
        if self.probabilities is not None:
            return expectation(self.probabilities, point.logits)
        assert self.mean_row is not None
        mean = (point.normalized.to(self.mean_row.dtype) * self.mean_row).sum(-1)
        return mean if self.mean_bias is None else mean + self.mean_bias
