"""Padding that nobody told of: a run of the tokenizer's pad token at an end of some rows."""

import warnings

from jaxtyping import Int
from torch import Tensor

from .kinds import ReadableModel


def warn_of_padding(bridge: ReadableModel, tokens: Int[Tensor, "batch pos"]) -> None:
    """Warn with a `UserWarning` if ids that came without a mask are likely to be padded.

    They are if some rows begin, or end, in more pad tokens than others do, and in two at least: a
    single one may begin or end a text, or stand in a window of one by chance.
    """
    tokenizer = bridge.tokenizer
    pad = None if tokenizer is None else tokenizer.pad_token_id
    if pad is None or len(tokens) < 2:
        return
    is_pad = tokens == pad
    for side, found in (("begin", is_pad), ("end", is_pad.flip(-1))):
        run = found.cumprod(-1).sum(-1)
        padded = (run > 1) & (run > run.min())
        if padded.any():
            rows = padded.nonzero()[:, 0].tolist()
            warnings.warn(
                f"{len(rows)} of {len(tokens)} rows, the first of them row {rows[0]}, {side} with "
                f"the pad token, id {pad}, and it is read as part of the text: pass "
                "attention_mask= with nonzero at real tokens, or texts, which are padded here",
                stacklevel=3,
            )
            return
