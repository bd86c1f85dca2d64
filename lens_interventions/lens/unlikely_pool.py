"""Directions of tokens drawn from the vocabulary, and random ones that match them.

A random direction is drawn with the mean and the covariance of the directions of all tokens, and is
made a row of the unembedding, as long as the row of a token that was drawn. That row gives it a
probability, so the output chooses unlikely random directions as it chooses unlikely tokens.
"""

import operator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.precision import as_double, at_least_float32
from ..model.readout import LOGIT_ROWS, Readout


@dataclass(frozen=True)
class Pool:
    """Some rows of an unembedding, or rows like them.

    Attributes:
        read: a readout that has these rows alone.
        directions: `[token, d_model]`, unit vectors along which their logits rise.
    """

    read: Readout
    directions: Float[Tensor, "token d_model"]

    @classmethod
    def of_rows(
        cls, read: Readout, weight: Float[Tensor, "token d_model"], bias: Tensor | None
    ) -> "Pool":
        """The pool of `weight`, rows of `read` or rows like them."""
        rows = replace(read, weight=weight, bias=bias, fast=False)
        return cls(rows, read.unit_directions(weight))

    def log_probs(
        self,
        normalized: Float[Tensor, "row d_model"],
        log_normalizer: Float[Tensor, " row"],
    ) -> Float[Tensor, "row token"]:
        """Log-probabilities with the normalizer of the whole vocabulary, which is given."""
        return self.read.logits(normalized).to(log_normalizer) - log_normalizer[:, None]


@dataclass(frozen=True)
class Matching:
    """The distribution from which random rows are drawn.

    The mean row is subtracted from each row, which is divided by the length of its direction.

    Attributes:
        read: the model's readout.
        tokens: `[token]`, the ids that have a logit.
        centre: `[d_model]`, the mean row.
        mean: `[d_model]`, the mean of the divided rows.
        spread: `[d_model, d_model]`; standard normal rows times this matrix have their covariance.
    """

    read: Readout
    tokens: Int[Tensor, " token"]
    centre: Float[Tensor, " d_model"]
    mean: Float[Tensor, " d_model"]
    spread: Float[Tensor, "d_model d_model"]

    @classmethod
    def of(cls, read: Readout) -> "Matching":
        """Mean and covariance of a readout's rows."""
        tokens = read.possible().nonzero()[:, 0]
        centre = read.mean_row
        total = as_double(torch.zeros_like(centre))
        products = torch.zeros(len(centre), len(centre), dtype=total.dtype, device=total.device)
        for ids in tokens.split(2**14):
            rows = read.weight[ids]
            divided = ((rows - centre) / _lengths(read, rows)).float()
            total += as_double(divided).sum(0)
            with torch.autocast(divided.device.type, enabled=False):
                products += as_double(divided.T @ divided)
        mean = total / len(tokens)
        covariance = products / len(tokens) - mean[:, None] * mean
        if not covariance.isfinite().all():
            raise ValueError("the unembedding is not finite (NaN or infinite): mend its weights")
        values, vectors = torch.linalg.eigh(covariance)
        spread = values.clamp(min=0).sqrt()[:, None] * vectors.T
        return cls(read, tokens, centre, mean.to(centre), spread.to(centre))

    def draw(self, size: int, seed: int) -> tuple[Pool, Pool]:
        """Tokens of the vocabulary, none twice, and for each a random row as long."""
        generator = torch.Generator().manual_seed(operator.index(seed))
        order = torch.randperm(len(self.tokens), generator=generator)[:size]
        ids = self.tokens[order.to(self.tokens.device)]
        rows = self.read.weight[ids]
        # The process's default dtype would draw other numbers.
        shape = (len(rows), len(self.mean))
        noise = torch.randn(shape, generator=generator, dtype=torch.float32).to(self.mean)
        with torch.autocast(noise.device.type, enabled=False):
            drawn = self.mean + noise @ self.spread
        scale = _lengths(self.read, rows) / _lengths(self.read, self.centre + drawn)
        bias = None if self.read.bias is None else self.read.bias[ids]
        random = self.centre + drawn * scale
        return Pool.of_rows(self.read, rows, bias), Pool.of_rows(self.read, random, bias)


def _lengths(read: Readout, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row 1"]:
    return read.token_directions(rows).norm(dim=-1, keepdim=True)


def likeliest(
    read: Readout, normalized: Float[Tensor, "row d_model"], k: int
) -> tuple[Int[Tensor, "row k"], Float[Tensor, " row"]]:
    """The `k` likeliest tokens of each row, and the log of the sum of all tokens' weights."""
    ids, normalizers = [], []
    for rows in normalized.split(LOGIT_ROWS):
        logits = read.logits(rows)
        ids.append(logits.topk(min(k, logits.shape[-1])).indices)
        # Half precision loses too much in the sum over the vocabulary.
        wide = logits.to(at_least_float32(logits.dtype))
        normalizers.append(wide.logsumexp(-1))
    return torch.cat(ids), torch.cat(normalizers)
