"""Runs without a patch, for gates that read the model's output and for back-patching."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..lens.distributions import log_probs_of
from ..model.kinds import ReadableModel
from ..model.points import FINAL, layer_label
from ..model.readout import LOGIT_ROWS, Readout, readout
from ..model.residuals import residual_chunks
from ..model.tokens import TokenBatch
from ..model.user_hooks import moved_right
from .known_text import KnownText
from .patch_fields import PatchFields
from .sources import BackPatch


def surprisal_of(
    read: Readout, final: Float[Tensor, "*row d_model"], following: Int[Tensor, "*row"]
) -> Float[Tensor, "*row"]:
    """Nats of a token at each row of the last residual, with few rows of logits at a time."""
    rows = zip(
        final.flatten(0, -2).split(LOGIT_ROWS), following.flatten().split(LOGIT_ROWS), strict=True
    )
    return -torch.cat([log_probs_of(read(resid), ids) for resid, ids in rows]).view_as(following)


def source_layers(patches: Iterable[PatchFields]) -> tuple[int, ...]:
    """The layers whose unpatched residuals some of the patches write."""
    sources = [patch.source for patch in patches]
    return tuple(sorted({source.layer for source in sources if isinstance(source, BackPatch)}))


def with_unpatched(
    bridge: ReadableModel, text: KnownText, patches: Iterable[PatchFields]
) -> KnownText:
    """The texts with the values of an unpatched run that the patches read.

    The bridge runs once, unless no patch reads such values. Where gradients are on, they go through
    this run. Raises `ValueError` if it runs while there are hooks on it and padding on the left.
    """
    patches = list(patches)
    if not any(patch.reads_unpatched for patch in patches):
        return text
    read, position = readout(bridge).for_rows(text.tokens.numel()), text.column_positions()
    batch = moved_right(bridge, TokenBatch(text.tokens, position >= 0))
    following = batch.tokens.roll(-1, dims=1)
    n_layers = int(bridge.cfg.n_layers)
    labels = {layer: layer_label(layer, n_layers) for layer in source_layers(patches)}
    parts, chunks = [], []
    for start, streams in residual_chunks(bridge, batch, sorted({FINAL, *labels.values()})):
        final = streams[FINAL]
        parts.append(surprisal_of(read, final, following[:, start : start + final.shape[1]]))
        chunks.append({layer: streams[label] for layer, label in labels.items()})
    row = torch.arange(len(position), device=position.device)[:, None]
    column = position.clamp(min=0)
    return replace(
        text,
        surprisal=torch.cat(parts, dim=1)[row, column],
        residuals={
            layer: torch.cat([chunk[layer] for chunk in chunks], dim=1)[row, column]
            for layer in labels
        },
    )
