"""The derivative of the loss with respect to the residual of every patched position.

Through the two streams of `teacher_forcing.two_streams` from block 0 up, the loss at the clean
copies depends on every patched copy at every layer. Patches of strength 0 change nothing, so the
blocks are differentiated where the model runs anyway, on the residuals of a plain run, one after
another from the top: block l turns the derivative with respect to `r[l + 1]` of both streams into
that with respect to `r[l]`. No graph spans more than a block, so the memory is that of one, beside
the residuals. It is attribution patching (Nanda 2023; Kramár et al. 2024, "AtP*") for a patch that
only later tokens see.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ...model.partial_run import run_late_rows
from ...model.points import point_labels
from ..teacher_forcing.two_streams import Layout, layout, visible
from .clean_run import CleanRun


def residual_gradients(
    bridge: TransformerBridge,
    clean: CleanRun,
    losses: Sequence[Bool[Tensor, "batch pos"]],
    *,
    lowest: int,
    window: int | None = None,
) -> Iterator[tuple[int, list[Float[Tensor, "batch pos d_model"]]]]:
    """For each layer, the highest first: d(loss) / d(residual of position i entering the layer).

    The residual of i as predictions after i see it: as patched copies, not where i itself predicts.

    **Arguments:**

    - `losses`: which predictions are summed, one mask for each loss; the layer comes with a
        gradient for each.
    - `lowest`: the layer to stop at.
    - `window`: let each prediction see only so many of the last positions patched.
    """
    length = clean.streams[0].shape[1]
    rows = layout(0, length, window, clean.streams[0].device)
    at_clean = torch.zeros_like(clean.streams[0][:, rows.position])
    gradients = [
        at_clean.index_copy(1, rows.clean, clean.gradient * loss[..., None]) for loss in losses
    ]
    for layer in range(int(bridge.cfg.n_layers) - 1, lowest - 1, -1):
        gradients = _through_block(bridge, layer, clean.streams[layer], rows, window, gradients)
        yield layer, [_of_patched(gradient, rows, length) for gradient in gradients]


def _through_block(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    rows: Layout,
    window: int | None,
    gradients: Sequence[Float[Tensor, "batch row d_model"]],
) -> list[Float[Tensor, "batch row d_model"]]:
    leaf = resid[:, rows.position].detach().requires_grad_()
    with torch.enable_grad():
        after = run_late_rows(
            bridge,
            layer,
            leaf,
            position=rows.position,
            key_position=rows.position,
            visible=visible(rows, 0, window),
            cache=DynamicCache(),
            until=point_labels(int(bridge.cfg.n_layers))[layer + 1],
        )
    last = len(gradients) - 1
    return [
        torch.autograd.grad(after, leaf, gradient, retain_graph=i < last)[0]
        for i, gradient in enumerate(gradients)
    ]


def _of_patched(
    gradient: Float[Tensor, "batch row d_model"], rows: Layout, length: int
) -> Float[Tensor, "batch pos d_model"]:
    """Summed over the patched copies of each position: with a window it has several."""
    patched = rows.patched.nonzero()[:, 0]
    of_position = torch.zeros_like(gradient[:, :length])
    return of_position.index_add(1, rows.position[patched], gradient[:, patched])
