"""The pad token, and padding that no mask marks: a run of that token at an end of some rows."""

from jaxtyping import Int
from torch import Tensor

from .kinds import ReadableModel
from .user_warnings import warn_user


def pad_token(bridge: ReadableModel) -> int:
    """The id of the tokenizer's pad token; 0 if there is none, or the model does not embed it."""
    pad = None if bridge.tokenizer is None else bridge.tokenizer.pad_token_id
    return pad if pad is not None and pad < bridge.cfg.d_vocab else 0


def warn_of_padding(bridge: ReadableModel, tokens: Int[Tensor, "batch pos"]) -> None:
    """Warn with a `UserWarning` if ids that came without a mask are likely to be padded.

    They are if some rows begin, or end, with more pad tokens than others, and with at least two: a
    single one may belong to a text. If a pad token stands inside any row, it is a token like any
    other, and there is no warning.
    """
    tokenizer = bridge.tokenizer
    pad = None if tokenizer is None else tokenizer.pad_token_id
    if pad is None or len(tokens) < 2:
        return
    is_pad = tokens == pad
    runs = {"begin": is_pad.cumprod(-1).sum(-1), "end": is_pad.flip(-1).cumprod(-1).sum(-1)}
    if (is_pad.sum(-1) > sum(runs.values())).any():
        return
    for side, run in runs.items():
        padded = (run > 1) & (run > run.min())
        if padded.any():
            rows = padded.nonzero()[:, 0].tolist()
            warn_user(
                f"{len(rows)} of {len(tokens)} rows, the first of them row {rows[0]}, {side} with "
                f"the pad token, id {pad}, and it is read as part of the text: pass texts, a "
                "list of rows without padding, or, where a function takes it, attention_mask= with "
                "nonzero at real tokens",
            )
            return
