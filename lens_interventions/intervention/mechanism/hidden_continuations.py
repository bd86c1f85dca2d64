"""Two streams in which predictions do not see the tokens after earlier occurrences of their own.

From a layer up there are four copies of a text. In the plain stream nothing is patched, in the
patched stream every position is, and each attends to itself alone. The read rows have keys from one
of these two and values from one of them. The predicting rows attend to the read rows before them,
except to those that are hidden, and to themselves. If keys and values come from one stream, that
stream itself is read, and the others are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ...model.attention_points import attention_points
from ...model.capabilities import recall
from ...model.hooks import Hook, HookFunction, change_layers
from ...model.partial_run import run_late_blocks, run_late_rows
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..teacher_forcing.self_check import require_two_streams

Through = Literal["both", "keys", "values"]
THROUGH: tuple[Through, ...] = ("both", "keys", "values")
"""What a prediction reads of the patched positions; all else stays as without the patch."""

# Tokens on which a model is tried.
_TRIED = 8

_PLAIN, _PATCHED, _READ, _PREDICTING = range(4)


def hidden_continuations(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Whether position j (last axis) follows an earlier occurrence of the token at t.

    True at `[t, j]` with `j < t` and `x[j-1] == x[t]`: where an induction head at t looks. It does
    not depend on `x[t+1]`, so it could be hidden in generation too.
    """
    before = tokens.roll(1, dims=1)[:, None] == tokens[:, :, None]
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return before & (place > 0) & (place < place[:, None])


@dataclass(frozen=True)
class _Rows:
    """The copies of a text, one after another.

    Attributes:
        copies: which copies there are, in order.
        length: positions of each.
        read: the copy that predictions read.
    """

    copies: tuple[int, ...]
    length: int
    read: int

    @classmethod
    def of(cls, through: Through, length: int) -> "_Rows":
        if through == "both":
            return cls((_PATCHED, _PREDICTING), length, _PATCHED)
        return cls((_PLAIN, _PATCHED, _READ, _PREDICTING), length, _READ)

    def place(self, copy: int) -> slice:
        start = self.copies.index(copy) * self.length
        return slice(start, start + self.length)

    def visible(self, hidden: Bool[Tensor, "batch pos pos"]) -> Bool[Tensor, "batch row row"]:
        n_texts, n_rows = len(hidden), len(self.copies) * self.length
        seen = hidden.new_zeros(n_texts, n_rows, n_rows)
        earlier = torch.ones_like(hidden[0]).tril()
        itself = torch.eye(self.length, dtype=torch.bool, device=hidden.device)
        for copy in self.copies:
            own = self.place(copy)
            seen[:, own, own] = earlier if copy in (_PLAIN, _PATCHED) else itself
        seen[:, self.place(_PREDICTING), self.place(self.read)] = earlier & ~itself & ~hidden
        return seen


def late_predictions(
    bridge: TransformerBridge,
    bound: BoundPatch | None,
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    hidden: Bool[Tensor, "batch pos pos"],
    *,
    layer: int,
    through: Through,
) -> Float[Tensor, "batch pos d_model"]:
    """`r[L]` at the predicting rows, from `r[layer]` of texts that are padded on the right.

    **Arguments:**

    - `bound`: a patch without a window that does not act below `layer`, or None.
    - `hidden`: the positions (last axis) that the prediction at t does not see from `layer` up.
    - `through`: whether predictions read keys, values or both of the patched positions.
    """
    length = resid.shape[1]
    rows = _Rows.of(through, length)
    # What enters as the read rows is never read. In a model without such hooks it would be, and the
    # loss would show it.
    entering = [resid.roll(1, dims=1) if copy == _READ else resid for copy in rows.copies]
    place = torch.arange(length, device=resid.device)
    position = place.repeat(len(rows.copies))
    late = run_late_rows(
        bridge,
        layer,
        torch.cat(entering, dim=1),
        position=position,
        visible=rows.visible(hidden),
        fwd_hooks=[
            *_patching(bound, rows, text, position),
            *_reading(bridge, rows, layer, through),
        ],
    )
    return late[:, rows.place(_PREDICTING)]


def require_copies(
    bridge: TransformerBridge,
    resid: Float[Tensor, "batch pos d_model"],
    text: KnownText,
    *,
    layer: int,
    through: Sequence[Through],
) -> None:
    """Raise `NotImplementedError` if a model does not run these copies as it runs one text.

    `resid` is `r[layer]`. Keys and values are tried once for each layer: with nothing written and
    nothing hidden, the predicting rows must come out as in the plain model, although the rows that
    they read had other contents when they entered the layer.
    """
    require_two_streams(bridge, layer, resid, "so positions cannot be hidden from one of them")

    def one_way(way: Through) -> bool:
        few = resid[:1, :_TRIED]
        nothing = few.new_zeros(1, few.shape[1], few.shape[1], dtype=torch.bool)
        late = late_predictions(bridge, None, few, text, nothing, layer=layer, through=way)
        plain = run_late_blocks(bridge, layer, few)
        return bool((late - plain).norm() <= 0.01 * plain.norm())

    for way in through:
        question = f"predictions from layer {layer} can read {way} of their own choice"
        if way != "both" and not recall(bridge, question, partial(one_way, way)):
            raise NotImplementedError(
                f"{bridge.cfg.architecture} does not read the {way} that hooks put in, from layer "
                f"{layer} up: leave {way!r} out of through"
            )


def key_value_points(bridge: TransformerBridge, layers: Sequence[int]) -> list[tuple[str, str]]:
    """The hooks at the keys and at the values of some layers, `[batch, pos, head, d_head]`.

    Raises `NotImplementedError` for a layer whose attention has none.
    """
    keys, values = (attention_points(bridge, point, layers) for point in ("k", "v"))
    return list(zip(keys, values, strict=True))


def _patching(
    bound: BoundPatch | None, rows: _Rows, text: KnownText, position: Int[Tensor, " row"]
) -> list[Hook]:
    if bound is None:
        return []
    at_patched = torch.full_like(position, -1)
    at_patched[rows.place(_PATCHED)] = position[rows.place(_PATCHED)]

    def patched(resid: Tensor, *, layer: int) -> Tensor:
        return bound(
            resid, layer=layer, position=at_patched.expand(len(text.tokens), -1), text=text
        )

    return change_layers(bound.patch.layers, patched)


def _reading(bridge: TransformerBridge, rows: _Rows, layer: int, through: Through) -> list[Hook]:
    if through == "both":
        return []
    keys, values = (_PATCHED, _PLAIN) if through == "keys" else (_PLAIN, _PATCHED)
    points = key_value_points(bridge, range(layer, int(bridge.cfg.n_layers)))
    return [
        (name, _copied(rows.place(source), rows.place(_READ)))
        for pair in points
        for name, source in zip(pair, (keys, values), strict=True)
    ]


def _copied(source: slice, target: slice) -> HookFunction:
    """A hook that replaces some rows by others."""

    def copy_rows(tensor: Tensor, hook: HookPoint) -> Tensor:
        tensor = tensor.clone()
        tensor[:, target] = tensor[:, source]
        return tensor

    return copy_rows
