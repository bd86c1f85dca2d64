"""The vectors that stand for tokens, as the model feeds them to its first block."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .capabilities import embedding_factor
from .kinds import ReadableModel, text_config
from .precision import at_least_float32
from .product import weighted_rows


@dataclass(frozen=True)
class Embedding:
    """Vectors that stand for tokens: `scale * weight[id]`, times `carry` if there is one.

    Attributes:
        weight: `[d_vocab, d_model]`, TransformerLens's `W_E`.
        scale: the factor that the model multiplies by (the square root of d_model in Gemma), or 1.
        carry: `[d_model, d_model]`, a map of the vectors to other coordinates, or None.
        centred: whether their mean over the vocabulary is taken off.
    """

    weight: Float[Tensor, "d_vocab d_model"]
    scale: float
    carry: Float[Tensor, "d_model d_model"] | None = None
    centred: bool = False

    def __call__(self, ids: Int[Tensor, "*row"]) -> Float[Tensor, "*row d_model"]:
        """Embeddings of token ids."""
        return self._of_rows(self.weight[ids])

    def mean(self, probabilities: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row d_model"]:
        """The expected embedding of a token drawn with these probabilities."""
        rows = probabilities.to(self.weight.dtype)
        return self._of_rows(weighted_rows(rows, self.weight, fast=False))

    @cached_property
    def average(self) -> Float[Tensor, " d_model"]:
        """The mean over the vocabulary."""
        return self._of_rows(self.weight.mean(0))

    @cached_property
    def typical_length(self) -> Float[Tensor, ""]:
        """The median length over the vocabulary, in float32 at least."""
        dtype = at_least_float32(self.weight.dtype)
        return torch.linalg.vector_norm(self._of_rows(self.weight), dim=-1, dtype=dtype).median()

    @cached_property
    def _centre(self) -> Float[Tensor, " d_model"]:
        return self._carried(self.weight.mean(0))

    def _of_rows(self, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """The vectors that rows of the weight, or averages of them, stand for."""
        vectors = self._carried(rows)
        return vectors - self._centre if self.centred else vectors

    def _carried(self, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        vectors = rows * self.scale
        return vectors if self.carry is None else vectors @ self.carry


def embedding(bridge: ReadableModel) -> Embedding:
    """The model's token embedding, with the factor that it applies, measured on four tokens.

    Raises `NotImplementedError` if the model does more to an embedding than multiply it.
    """
    return Embedding(bridge.W_E.detach(), embedding_factor(bridge))


def embeddings_are_tied(bridge: TransformerBridge) -> bool:
    """Whether the model was made with one matrix for the embedding and the unembedding."""
    # TransformerLens may have folded a norm into one of them since, so weights are not compared.
    return bool(getattr(text_config(bridge), "tie_word_embeddings", False))
