"""The derivative of the loss with respect to the residual of every patched position.

In the two streams of `teacher_forcing.two_streams`, run from block 0 up, the loss at the clean
copies depends on every patched copy at every layer. Patches of strength 0 change nothing, so the
blocks are differentiated where the model runs anyway, on the residuals of a plain run, one after
another from the top: block l turns the derivative with respect to `r[l + 1]` of both streams into
that with respect to `r[l]`. No graph spans more than one block, so memory holds the residuals and
the graph of that block. It is attribution patching (Nanda 2023; Kramár et al. 2024, "AtP*") for a
patch that only later tokens see.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..teacher_forcing.two_streams import Layout
from .block_graph import block_graph, last_gradients
from .clean_run import CleanRun


def residual_gradients(
    bridge: TransformerBridge,
    clean: CleanRun,
    losses: Bool[Tensor, "loss batch pos"],
    *,
    lowest: int,
    window: int | None = None,
) -> Iterator[tuple[int, list[Float[Tensor, "batch pos d_model"]]]]:
    """d(loss) / d(residual of position i entering the layer), by layer, the highest first.

    That residual is the patched copy, which later predictions see, and not the one with which i
    itself predicts.

    **Arguments:**

    - `losses`: the predictions that each loss sums; every layer comes with a gradient for each
        loss.
    - `lowest`: the layer to stop at.
    - `window`: let each prediction see only this many of the last positions patched.
    """
    length = clean.streams[0].shape[1]
    rows, gradients = last_gradients(bridge, clean, losses, window=window)
    for layer in range(int(bridge.cfg.n_layers) - 1, lowest - 1, -1):
        gradients = _through_block(bridge, layer, clean, rows, gradients)
        yield layer, [_of_patched(gradient, rows, length) for gradient in gradients]


def _through_block(
    bridge: TransformerBridge,
    layer: int,
    clean: CleanRun,
    rows: Layout,
    gradients: Sequence[Float[Tensor, "batch row d_model"]],
) -> list[Float[Tensor, "batch row d_model"]]:
    entering, leaving = block_graph(bridge, layer, clean, rows)
    last = len(gradients) - 1
    return [
        torch.autograd.grad(leaving, entering, gradient, retain_graph=i < last)[0]
        for i, gradient in enumerate(gradients)
    ]


def _of_patched(
    gradient: Float[Tensor, "batch row d_model"], rows: Layout, length: int
) -> Float[Tensor, "batch pos d_model"]:
    """Summed over the patched copies of each position: with a window it has several."""
    patched = rows.patched.nonzero()[:, 0]
    of_position = torch.zeros_like(gradient[:, :length])
    return of_position.index_add(1, rows.position[patched], gradient[:, patched])
