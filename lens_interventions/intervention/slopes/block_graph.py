"""One block of the two streams without a patch, ready to be differentiated."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import Hook
from ...model.partial_run import run_late_rows
from ...model.points import layer_label
from ..teacher_forcing.self_check import require_two_streams
from ..teacher_forcing.two_streams import Layout, layout, visible
from .clean_run import CleanRun


def last_gradients(
    bridge: TransformerBridge,
    clean: CleanRun,
    losses: Bool[Tensor, "loss batch pos"],
    *,
    window: int | None = None,
) -> tuple[Layout, list[Float[Tensor, "batch row d_model"]]]:
    """The rows of both streams, and the derivatives of losses with respect to `r[L]` of these rows.

    `losses` are masks of the predictions that each loss sums. The derivatives are zero except at
    the clean copies, where logits are read.

    Raises `NotImplementedError` if the two streams do not fit the model.
    """
    stream = clean.streams[0]
    # Each block will run by itself. To try all takes long; the highest one shows models whose upper
    # blocks need something of lower ones, such as shared keys.
    for layer in (0, int(bridge.cfg.n_layers) - 1):
        require_two_streams(
            bridge,
            layer,
            clean.streams[layer],
            "and slopes are taken through both: compare patched losses of teacher_forced_log_probs "
            "at small strengths",
            window=window,
        )
    rows = layout(0, stream.shape[1], window, stream.device)
    zeros = torch.zeros_like(stream[:, rows.position])
    return rows, [
        zeros.index_copy(1, rows.clean, clean.gradient * loss[..., None]) for loss in losses
    ]


def block_graph(
    bridge: TransformerBridge,
    layer: int,
    clean: CleanRun,
    rows: Layout,
    *,
    fwd_hooks: Sequence[Hook] = (),
) -> tuple[Float[Tensor, "batch row d_model"], Float[Tensor, "batch row d_model"]]:
    """`r[layer]` of `rows`, a leaf, and `r[layer + 1]`, computed from it with gradients.

    `fwd_hooks` are hooks on the block.
    """
    entering = clean.streams[layer][:, rows.position].detach().requires_grad_()
    with torch.enable_grad():
        leaving = run_late_rows(
            bridge,
            layer,
            entering,
            position=rows.position,
            visible=visible(rows, 0),
            fwd_hooks=fwd_hooks,
            until=layer_label(layer + 1, int(bridge.cfg.n_layers)),
        )
    return entering, leaving
