"""A write of the references: rows of the unembedding, as long as the residual."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

Write = Callable[[Float[Tensor, "1 pos d_model"], int], Float[Tensor, "1 pos d_model"]]


def adding(bridge: TransformerBridge, strength: float, token_at: Callable[[int], int]) -> Write:
    """Adds strength times the row of a token to each position below one, `t`."""

    def write(resid: Tensor, t: int) -> Tensor:
        for i in range(t):
            e = bridge.W_U[:, token_at(i)]
            resid[0, i] += strength * resid[0, i].norm() * e / e.norm()
        return resid

    return write
