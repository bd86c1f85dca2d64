"""Whether the two streams, or the upper blocks alone, are right on a model: tried, not trusted.

Some architectures build part of their attention mask inside (GPT-Neo's local layers, ALiBi), by
place in the sequence, and are silently wrong on rows in another order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from ..._counter_random import random_integers
from ...model.capabilities import (
    REFUSALS,
    capabilities,
    frequencies_change_after,
    lacks_memory,
    recall,
    record,
    slow_check,
)
from ...model.hooks import without_hooks
from ...model.kept_answers import is_kept, keep_right
from ...model.kinds import recurrent_parts, refuse_recurrent_parts
from ...model.partial_run import run_late_blocks
from ...model.precision import is_half
from ...model.readout import readout, refuse_nan
from ...model.replaced_forwards import forwards_of_user
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from ...model.user_hooks import lasting_hooks
from ..known_text import KnownText
from ..patch import NextTokenPatch
from .end_of_text import end_of_text
from .step_by_step import recomputed_steps
from .two_streams import layout, one_chunk, positions_at_once, two_streams

Found = TypeVar("Found")

_LENGTH = 8
# A chunk that leaves some of the probe's positions in the cache and the last chunk unfilled.
_CHUNK = 3
_SHORTEST_PLAIN = 32

# Largest error of a row relative to the largest effect of the patch (or row), by whether the model
# computes in half precision. Right rows were within 2e-5 in float32 and 1e-2 in bfloat16, wrong
# ones beyond 0.03 (ALiBi on 8 tokens) and 0.2 (anything on 32).
_TOLERANCE = {False: 0.01, True: 0.1}

# The effect of rounding on a row, relative to its length: an error within it says nothing. If no
# position sees a patch on another, rounding is the only error.
_ROUNDING = {False: 2e-5, True: 0.01}


@dataclass(frozen=True)
class Trial:
    """The result of trying the two streams from one layer up.

    Attributes:
        right_up_to: the longest text on which they were found right; 0 if they are wrong.
        wrong_from: the shortest length for which the text that was tried was wrong.
        raised: the error with which they ended; None if they ran. Without it, two package versions
            that do not fit each other would look like a model that cannot run them.
    """

    right_up_to: int
    wrong_from: float = math.inf
    raised: str | None = None


@torch.no_grad()
def two_streams_hold(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    *,
    window: int | None = None,
    whole: bool = False,
) -> bool:
    """Whether the two streams from `layer` up are right on texts as long as `resid`, `r[layer]`.

    `window` is that of the patches, and `whole` says that the text will run in one piece: both
    decide how many rows there are, and how far apart by place.

    Two tests decide. The first is made once for a model, from block 0 up, which tries every block:
    a strong patch on a few random tokens is run through the streams and step by step. For a large
    model, a success is remembered across processes. The second is made at each layer and window for
    every new power of two of the length: the end of such a text is run through the streams without
    a patch, on rows of `resid`, and must equal the plain model. A text that will run in one piece
    is tried in one piece. This test finds attention that is cut or biased by place, which shows
    more, or only, in longer texts, and models whose lower blocks hand something to the upper ones.
    If the streams are wrong from block 0 up, the first test is made again from `layer` up. Under
    hooks that the user has put on for good, a text that passes both runs whole, once for each
    length, since a hook may act on columns that shorter runs lack. Texts so long that they turn on
    other rotary frequencies are not tried: those of their beginnings differ.

    Raises `ValueError` if `resid` is not finite or the model's own logits are NaN, since the test
    would then say nothing about the model.
    """
    if not resid.isfinite().all():
        raise ValueError(
            f"the residual stream is not finite (NaN or infinite) where it enters block {layer}: "
            "look for a hook that writes such values, or a half-precision overflow"
        )
    limit = frequencies_change_after(bridge)
    if resid.shape[1] > limit:
        return False
    longest = int(min(bridge.cfg.n_ctx, limit))
    length = min(max(resid.shape[1], _SHORTEST_PLAIN), longest)
    whole = whole and length > positions_at_once(1, window)
    found = recall(bridge, _question(layer), lambda: _found_with_few_tokens(bridge, layer))
    question = _question(layer, window, whole)
    if found.right_up_to > 0:
        found = recall(bridge, question, lambda: Trial(_LENGTH))
    if 0 < found.right_up_to < length < found.wrong_from:
        # A text in one piece can have many rows, so none longer is tried in its place.
        longer = length if whole else min(2 ** (length - 1).bit_length(), longest)
        at_once = length if whole else positions_at_once(1, window)
        both = partial(
            end_of_text, bridge, layer, resid[:1], longer, window=window, at_once=at_once
        )
        tried = _tried_against_plain(bridge, both, longer)
        if tried.right_up_to > 0:
            found = replace(found, right_up_to=longer)
        else:
            # Of the lengths that this trial stands for; shorter texts may still be right.
            shortest = length if whole else longer // 2 + 1
            found = replace(found, wrong_from=shortest, raised=tried.raised)
        record(bridge, question, found)
    if found.right_up_to < length:
        return False
    if not (lasting_hooks(bridge) or forwards_of_user(bridge)):
        return True
    length = resid.shape[1]
    at_once = length if whole else positions_at_once(1, window)
    both = partial(_whole_text, bridge, layer, resid[:1], window, at_once)
    found = recall(
        bridge,
        f"{question} on {length} tokens",
        lambda: _tried_against_plain(bridge, both, length),
    )
    return found.right_up_to > 0


def require_two_streams(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    why: str,
    *,
    window: int | None = None,
) -> None:
    """Raise `NotImplementedError` unless `two_streams_hold` for texts that run in one piece.

    `why` ends the message.
    """
    refuse_recurrent_parts(bridge)
    if not two_streams_hold(bridge, layer, resid, window=window, whole=True):
        raised = what_was_raised(bridge, layer, window=window, whole=True)
        raise NotImplementedError(
            f"{bridge.cfg.architecture} does not run two copies of a text side by side from block "
            f"{layer} up as it runs one{raised}, {why}"
        )


def require_late_blocks(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    last: Float[Tensor, "batch pos d_model"],
) -> None:
    """Refuse a model whose blocks from `layer` up do not make `last`, `r[L]`, of `resid` alone.

    Raises `NotImplementedError`, as for blocks that read the embedding too.
    """
    late = _attempt(lambda: run_late_blocks(bridge, layer, resid))
    normalize = readout(bridge).normalize
    if not isinstance(late, str):
        expected = normalize(last)
        if _close(normalize(late), expected, expected):
            return
    raised = f" (it raised {late})" if isinstance(late, str) else ""
    # Teacher forcing refuses recurrent layers as well.
    advice = ": compare logits of teacher_forced_logits with a patch at each position"
    raise NotImplementedError(
        f"{bridge.cfg.architecture} does not run its blocks from {layer} up on a residual "
        f"alone{raised}{'' if recurrent_parts(bridge) else advice}"
    )


def what_was_raised(
    bridge: TransformerBridge, layer: int, *, window: int | None = None, whole: bool = False
) -> str:
    """For a message: in brackets, the error with which two streams ended, if there was one."""
    known = capabilities(bridge)
    for question in (_question(layer, window, whole), _question(layer, window), _question(layer)):
        if (found := known.get(question)) and found.raised:
            return f" (on two copies it raised {found.raised})"
    return ""


def _question(layer: int, window: int | None = None, whole: bool = False) -> str:
    of_window = "" if window is None else f" with a window of {window}"
    return f"two streams from layer {layer}{of_window}{' in one piece' if whole else ''}"


def _found_with_few_tokens(bridge: TransformerBridge, layer: int) -> Trial:
    def try_from(lowest: int) -> Trial:
        with slow_check(
            "whether two copies of a text can be run side by side, once for this model"
        ):
            return _tried_against_steps(bridge, lowest)

    def try_all() -> Trial:
        if is_kept(bridge, _question(0)):
            return Trial(_LENGTH)
        found = try_from(0)
        if found.right_up_to > 0:
            keep_right(bridge, _question(0))
        return found

    if layer == 0:
        return try_all()
    if recall(bridge, _question(0), try_all).right_up_to > 0:
        return Trial(_LENGTH)
    return try_from(layer)


def _tried_against_steps(bridge: TransformerBridge, layer: int) -> Trial:
    length = min(_LENGTH, int(bridge.cfg.n_ctx))
    counter = torch.arange(length, device=bridge.cfg.device)[None]
    tokens = random_integers(int(bridge.cfg.d_vocab), 0, counter)
    batch = TokenBatch.unpadded(tokens)
    text = KnownText.from_batch(batch)
    # Replaces whole residuals by noise of their own size, so that missing the patch shows.
    patch = NextTokenPatch(
        layer=layer, strength=1.0, scale="norm", embedding="W_U", source="direction"
    )
    with without_hooks(bridge.hook_points()):
        bound = patch.bind(bridge)
        (resid,) = residuals(bridge, batch, [f"{layer}_pre"])
        late = _attempt(
            lambda: torch.cat(
                list(two_streams(bridge, [bound], resid, text, layer=layer, chunk_size=_CHUNK)),
                dim=2,
            )
        )
        if isinstance(late, str):
            return Trial(0, raised=late)
        expected = torch.cat(list(recomputed_steps(bridge, [bound], text)), dim=2)[0]
        clean, possible = bridge(tokens), bound.readout.possible()
        refuse_nan(clean[..., possible])
        effect = expected - clean
        actual = bound.readout(late[0])
        right = _close(*(rows[..., possible] for rows in (actual, expected, effect)))
    return Trial(_LENGTH if right else 0)


def _tried_against_plain(
    bridge: TransformerBridge, both: Callable[[], tuple[Tensor, Tensor]], length: int
) -> Trial:
    with without_hooks(bridge.hook_points()):
        late = _attempt(both)
    if isinstance(late, str):
        return Trial(0, raised=late)
    actual, expected = map(readout(bridge).normalize, late)
    return Trial(length if _close(actual, expected, expected) else 0)


def _whole_text(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "1 pos d_model"],
    window: int | None,
    at_once: int,
) -> tuple[Float[Tensor, "1 pos d_model"], Float[Tensor, "1 pos d_model"]]:
    """`r[L]` of all rows without a patch: in two streams, and plainly."""
    length, cache = resid.shape[1], DynamicCache()
    tokens = torch.zeros(1, length, dtype=torch.long, device=resid.device)
    text = KnownText.from_batch(TokenBatch.unpadded(tokens))
    chunks: list[Tensor] = []
    for start in range(0, length, at_once):
        rows = layout(start, min(start + at_once, length), window, resid.device)
        of_rows = resid[:, rows.position]
        chunk = one_chunk(bridge, [None], of_rows, text, rows, layer=layer, cache=cache)
        chunks.append(chunk[0])
    return torch.cat(chunks, dim=1), run_late_blocks(bridge, layer, resid)


def _attempt(run: Callable[[], Found]) -> Found | str:
    """The result of two streams, or the error of a model that cannot run on such rows."""
    try:
        return run()
    except REFUSALS as error:
        if lacks_memory(error):
            raise
        return f"{type(error).__name__}: {error}"


def _close(actual: Tensor, expected: Tensor, effect: Tensor) -> bool:
    error, length, largest = (
        rows.float().norm(dim=-1).max() for rows in (actual - expected, expected, effect)
    )
    half = is_half(actual.dtype)
    return bool(error <= torch.maximum(_TOLERANCE[half] * largest, _ROUNDING[half] * length))
