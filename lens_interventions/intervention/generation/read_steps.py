"""The lens at the positions that predicted new tokens, read from what decoding recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_normal
from ...lens.cells import PositionError, select_cells
from ...lens.logit_lens import logit_lens
from ...lens.recorded_streams import RecordedStreams
from ...lens.trajectory import Trajectory
from ...model.kinds import weight_dtype
from ...model.points import point_labels
from ...model.tokens import TokenBatch
from ...model.user_warnings import warn_user
from ..known_text import KnownText
from .result import GenerationStep

# Options of `logit_lens` that say what is read.
_DECODED = {
    "text_or_tokens",
    "messages",
    "tokens",
    "attention_mask",
    "prepend_bos",
    "next_token",
}

Options = bool | Mapping[str, Any]
"""The argument `trajectory` of `generate`: options of `logit_lens`, or True for none."""


def read_steps(
    bridge: TransformerBridge,
    prompts: KnownText,
    tokens: Int[Tensor, "batch new"],
    taken: Sequence[GenerationStep],
    streams: Sequence[Mapping[str, Tensor]],
    options: Options,
) -> Trajectory | None:
    """`logit_lens` of the positions that predicted: last of the prompt, new ones but the last.

    None, and a warning, if a row has none of the `positions` that the options name.

    **Arguments:**

    - `tokens`: the new tokens, -1 behind a row's last.
    - `taken`, `streams`: each step, and the residual points `[row, d_model]` recorded in it.
    """
    mask = tokens >= 0
    lengths = mask.sum(-1)
    last = tokens.gather(1, lengths[:, None] - 1)[:, 0]
    predicting = torch.cat([prompts.tokens[:, -1:].cpu(), tokens[:, :-1].clamp(min=0)], dim=1)
    device = bridge.cfg.device
    laid_out: dict[str, Tensor] = {}
    for label, example in streams[0].items():
        stream = example.new_zeros((*tokens.shape, example.shape[-1]))
        for step, recorded in zip(taken, streams, strict=True):
            stream[step.rows.to(stream.device), step.step] = recorded[label]
        laid_out[label] = stream
    batch = TokenBatch(predicting.to(device), mask.to(device))
    try:
        read = logit_lens(
            bridge, RecordedStreams(batch, laid_out), next_token=last.tolist(), **_given(options)
        )
    except PositionError as error:  # for which nobody should lose what was written
        ended = str(error).replace("prompt", "row")
        warn_user(f"the generation has no trajectory, because a row ended too early: {ended}")
        return None
    start = prompts.length.cpu()[:, None] - 1
    return replace(read, positions=torch.where(read.mask, read.positions + start, read.positions))


def try_options(bridge: TransformerBridge, options: Options, most_new: int) -> None:
    """Raise now what `logit_lens` would raise for the options when all tokens have been made.

    It reads one made-up position; `positions` are tried on a row of `most_new` tokens.

    Raises `TypeError` for anything but a bool or a mapping; `ValueError` for options that say what
    is read, since that is what was decoded, and for positions that no row can have.
    """
    if not isinstance(options, bool | Mapping):
        raise TypeError(
            "trajectory must be True, False or a mapping of options of logit_lens; got "
            f"{options!r:.60}"
        )
    given = _given(options)
    if chosen := sorted(_DECODED & given.keys()):
        raise ValueError(
            f"trajectory has {', '.join(f'{name}=' for name in chosen)}, but reads what is "
            "decoded: leave them out"
        )
    if (positions := given.get("positions")) is not None:
        longest = TokenBatch.unpadded(torch.zeros(1, most_new, dtype=torch.long))
        try:
            select_cells(longest, positions)
        except PositionError as error:
            raise ValueError(
                f"trajectory has positions={positions!r}, and of at most {most_new} new tokens "
                "none is there: positions count the new tokens from 0"
            ) from error
    one = torch.zeros(1, 1, dtype=torch.long, device=bridge.cfg.device)
    # Not zeros, which a lens might divide by.
    resid = random_normal(int(bridge.cfg.d_model), 0, one).to(one.device, weight_dtype(bridge))
    streams = dict.fromkeys(point_labels(int(bridge.cfg.n_layers)), resid)
    recorded = RecordedStreams(TokenBatch.unpadded(one), streams)
    given |= {"positions": None, "progress": False}
    logit_lens(bridge, recorded, next_token=[0], **given)


def _given(options: Options) -> dict[str, Any]:
    return {} if isinstance(options, bool) else dict(options)
