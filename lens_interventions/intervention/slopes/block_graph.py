"""One block of the two streams without a patch, ready to be differentiated."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ...model.hooks import Hook
from ...model.partial_run import run_late_rows
from ...model.points import point_labels
from ..teacher_forcing.two_streams import Layout, layout, visible
from .clean_run import CleanRun


def whole_layout(clean: CleanRun, window: int | None = None) -> Layout:
    """The rows of both streams for whole texts; see `layout` for the window."""
    stream = clean.streams[0]
    return layout(0, stream.shape[1], window, stream.device)


def last_gradients(
    clean: CleanRun, rows: Layout, losses: Sequence[Bool[Tensor, "batch pos"]]
) -> list[Float[Tensor, "batch row d_model"]]:
    """For each mask of predictions, the derivative of their loss with respect to `r[L]` of `rows`.

    It is zero except at the clean copies, where logits are read.
    """
    zeros = torch.zeros_like(clean.streams[0][:, rows.position])
    return [zeros.index_copy(1, rows.clean, clean.gradient * loss[..., None]) for loss in losses]


def block_graph(
    bridge: TransformerBridge,
    layer: int,
    clean: CleanRun,
    rows: Layout,
    *,
    window: int | None = None,
    fwd_hooks: Sequence[Hook] = (),
) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch row d_model"]]:
    """`r[layer]` of `rows`, a leaf, and `r[layer + 1]`, computed from it with gradients.

    **Arguments:**

    - `window`: the window with which `rows` were laid out.
    - `fwd_hooks`: hooks on the block.
    """
    entering = clean.streams[layer][:, rows.position].detach().requires_grad_()
    with torch.enable_grad():
        leaving = run_late_rows(
            bridge,
            layer,
            entering,
            position=rows.position,
            key_position=rows.position,
            visible=visible(rows, 0, window),
            cache=DynamicCache(),
            fwd_hooks=fwd_hooks,
            until=point_labels(int(bridge.cfg.n_layers))[layer + 1],
        )
    return entering, leaving
