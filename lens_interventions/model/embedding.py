"""The vectors that stand for tokens, as the model feeds them to its first block."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .hooks import capture, without_hooks


@dataclass(frozen=True)
class Embedding:
    """Vectors that stand for tokens: `scale * weight[id]`, as the model feeds them, or carried on.

    Attributes:
        weight: `[d_vocab, d_model]`, TransformerLens's `W_E`.
        scale: what the model multiplies by (the square root of d_model in Gemma), else 1.
        carry: `[d_model, d_model]`, takes the vectors to other coordinates, if given.
    """

    weight: Float[Tensor, "d_vocab d_model"]
    scale: float
    carry: Float[Tensor, "d_model d_model"] | None = None

    def __call__(self, ids: Int[Tensor, "*row"]) -> Float[Tensor, "*row d_model"]:
        """Embeddings of token ids."""
        return self._carried(self.weight[ids])

    def mean(self, probabilities: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row d_model"]:
        """The expected embedding of a token drawn with these probabilities."""
        return self._carried(probabilities.to(self.weight.dtype) @ self.weight)

    def _carried(self, vectors: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        vectors = vectors * self.scale
        return vectors if self.carry is None else vectors @ self.carry


def embedding(bridge: TransformerBridge) -> Embedding:
    """The model's token embedding, with the factor it applies, measured on four tokens.

    Raises `NotImplementedError` where the model does more to an embedding than multiply it.
    """
    weight = bridge.W_E.detach()
    tokens = torch.arange(4, device=weight.device)[None] % len(weight)
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        (fed,) = capture(bridge, tokens, ["embed.hook_out"])
    rows = weight[tokens]
    scale = float((fed * rows).sum() / (rows * rows).sum())
    # A half-precision model rounds its factor and its products.
    tolerance = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 2e-2
    if not torch.allclose(fed, rows * scale, rtol=tolerance, atol=tolerance * float(fed.std())):
        raise NotImplementedError(
            f"{bridge.cfg.architecture} transforms its token embeddings before the first block, so "
            "a row of W_E is not what it feeds: use the unembedding (embedding='W_U')"
        )
    return Embedding(weight, 1.0 if abs(scale - 1) < tolerance else scale)
