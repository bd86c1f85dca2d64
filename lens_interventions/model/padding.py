"""Padding that nobody told of: a run of the tokenizer's pad token at an end of some rows."""

import warnings

from jaxtyping import Int
from torch import Tensor

from .kinds import ReadableModel


def warn_of_padding(bridge: ReadableModel, tokens: Int[Tensor, "batch pos"]) -> None:
    """Warn with a `UserWarning` if ids that came without a mask are likely to be padded.

    They are if some rows begin, or end, in more pad tokens than others do. A single one counts as
    text where the pad token also begins or ends texts, or stands within one.
    """
    tokenizer = bridge.tokenizer
    pad = None if tokenizer is None else tokenizer.pad_token_id
    if pad is None or len(tokens) < 2:
        return
    marks_texts = pad in (tokenizer.bos_token_id, tokenizer.eos_token_id)
    is_pad = tokens == pad
    for side, found in (("begin", is_pad), ("end", is_pad.flip(-1))):
        run = found.cumprod(-1).sum(-1)
        in_text = marks_texts or bool((found.sum(-1) > run).any())
        padded = (run > int(in_text)) & (run > run.min())
        if padded.any():
            rows = padded.nonzero()[:, 0].tolist()
            warnings.warn(
                f"{len(rows)} of {len(tokens)} rows, the first of them row {rows[0]}, {side} with "
                f"the pad token, id {pad}, and it is read as part of the text: pass "
                "attention_mask= with nonzero at real tokens, or texts, which are padded here",
                stacklevel=3,
            )
            return
