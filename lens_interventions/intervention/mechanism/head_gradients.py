"""Derivatives of the loss with respect to the keys and values of patched positions.

As in `slopes.residual_gradients`, block after block from the top, on the residuals of a plain run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ...model.hooks import Hook, HookFunction
from ...model.partial_run import run_late_rows
from ...model.points import point_labels
from ..slopes.clean_run import CleanRun
from ..teacher_forcing.two_streams import layout, visible
from .hidden_continuations import key_value_points

Heads = Float[Tensor, "batch pos head d_head"]


@dataclass(frozen=True)
class HeadGradients:
    """The keys and values of one block, and what the losses ask of them.

    Attributes:
        layer: of the block.
        entering: `[batch, row, d_model]`, the residual that enters it, of both streams; the patched
            positions come first.
        parts: keys, then values, `[batch, row, head, d_head]`, with their graph from `entering`.
        gradients: for each loss, of keys and of values at the patched positions.
    """

    layer: int
    entering: Float[Tensor, "batch row d_model"]
    parts: tuple[Float[Tensor, "batch row head d_head"], ...]
    gradients: tuple[tuple[Heads, ...], ...]

    def changes(
        self, part: int, directions: Sequence[Float[Tensor, "batch pos d_model"]]
    ) -> Iterator[Heads]:
        """By how much keys (part 0) or values (1) move as patched residuals move in directions.

        The derivative is that of a product with a vector, differentiated once more by the vector.
        """
        moved = self.parts[part]
        n_rows = self.entering.shape[1]
        dummy = torch.zeros_like(moved, requires_grad=True)
        with torch.enable_grad():
            (back,) = torch.autograd.grad(moved, self.entering, dummy, create_graph=True)
        for direction in directions:
            length = direction.shape[1]
            padded = torch.nn.functional.pad(direction, (0, 0, 0, n_rows - length))
            (change,) = torch.autograd.grad(back, dummy, padded, retain_graph=True)
            yield change[:, :length]


def head_gradients(
    bridge: TransformerBridge,
    clean: CleanRun,
    losses: Sequence[Bool[Tensor, "batch pos"]],
    *,
    lowest: int,
) -> Iterator[HeadGradients]:
    """For each layer, the highest first, down to `lowest`; a mask of predictions for each loss."""
    length = clean.streams[0].shape[1]
    rows = layout(0, length, None, clean.streams[0].device)
    at_clean = torch.zeros_like(clean.streams[0][:, rows.position])
    gradients = [
        at_clean.index_copy(1, rows.clean, clean.gradient * loss[..., None]) for loss in losses
    ]
    labels = point_labels(int(bridge.cfg.n_layers))
    for layer in range(int(bridge.cfg.n_layers) - 1, lowest - 1, -1):
        leaf = clean.streams[layer][:, rows.position].detach().requires_grad_()
        tapped: dict[str, Tensor] = {}
        (names,) = key_value_points(bridge, [layer])
        hooks: list[Hook] = [(name, _tap(tapped, name)) for name in names]
        with torch.enable_grad():
            after = run_late_rows(
                bridge,
                layer,
                leaf,
                position=rows.position,
                key_position=rows.position,
                visible=visible(rows, 0, None),
                cache=DynamicCache(),
                fwd_hooks=hooks,
                until=labels[layer + 1],
            )
        parts = tuple(tapped[name] for name in names)
        found = [
            torch.autograd.grad(after, [leaf, *parts], gradient, retain_graph=True)
            for gradient in gradients
        ]
        gradients = [residual for residual, *_ in found]
        yield HeadGradients(
            layer,
            leaf,
            parts,
            tuple(tuple(part[:, :length] for part in rest) for _, *rest in found),
        )


def _tap(tapped: dict[str, Tensor], name: str) -> HookFunction:
    """A hook that keeps a tensor and hands on the one kept, so that it lies on the way up."""

    def tap(tensor: Tensor, hook: HookPoint) -> Tensor:
        tapped[name] = tensor
        return tensor

    return tap
