"""Derivatives of the loss with respect to the keys and values of patched positions.

As in `slopes.residual_gradients`, blocks are differentiated one after another from the top, on the
residuals of a plain run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import Hook, HookFunction
from ..slopes.block_graph import block_graph, last_gradients
from ..slopes.clean_run import CleanRun
from .hidden_continuations import key_value_points

Heads = Float[Tensor, "batch pos head d_head"]


@dataclass(frozen=True)
class HeadGradients:
    """The keys and values of one block, and the gradients of the losses with respect to them.

    Attributes:
        layer: the number of the block.
        entering: `[batch, row, d_model]`, the residual of both streams that enters it; the patched
            positions come first.
        parts: keys, then values, `[batch, row, head, d_head]`, with their graph from `entering`.
        gradients: for each loss, the gradients of keys and of values at the patched positions.
    """

    layer: int
    entering: Float[Tensor, "batch row d_model"]
    parts: tuple[Float[Tensor, "batch row head d_head"], ...]
    gradients: tuple[tuple[Heads, ...], ...]

    def changes(
        self, part: int, directions: Sequence[Float[Tensor, "batch pos d_model"]]
    ) -> Iterator[Heads]:
        """How keys (part 0) or values (part 1) move as the patched residuals move in directions.

        This forward derivative comes from a backward pass that is differentiated once more, with
        respect to the vector that it was multiplied with.
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
    losses: Bool[Tensor, "loss batch pos"],
    *,
    lowest: int,
) -> Iterator[HeadGradients]:
    """The gradients at each layer, from the highest to `lowest`, for losses given as masks."""
    length = clean.streams[0].shape[1]
    rows, gradients = last_gradients(bridge, clean, losses)
    for layer in range(int(bridge.cfg.n_layers) - 1, lowest - 1, -1):
        tapped: dict[str, Tensor] = {}
        (names,) = key_value_points(bridge, [layer])
        hooks: list[Hook] = [(name, _tap(tapped, name)) for name in names]
        entering, leaving = block_graph(bridge, layer, clean, rows, fwd_hooks=hooks)
        parts = tuple(tapped[name] for name in names)
        for name, part in zip(names, parts, strict=True):
            if part.dim() != 4 or part.shape[:2] != entering.shape[:2]:
                raise NotImplementedError(
                    f"{name} of {bridge.cfg.architecture} has shape {tuple(part.shape)}, and not "
                    f"[batch, row, head, d_head] with {tuple(entering.shape[:2])} first: no slope "
                    "of a head can be told"
                )
        found = [
            torch.autograd.grad(leaving, [entering, *parts], gradient, retain_graph=True)
            for gradient in gradients
        ]
        gradients = [residual for residual, *_ in found]
        yield HeadGradients(
            layer,
            entering,
            parts,
            tuple(tuple(part[:, :length] for part in rest) for _, *rest in found),
        )


def _tap(tapped: dict[str, Tensor], name: str) -> HookFunction:
    """A hook that keeps a tensor and returns it, so that the graph above runs through it."""

    def tap(tensor: Tensor, hook: HookPoint) -> Tensor:
        tapped[name] = tensor
        return tensor

    return tap
