"""Which heads would read a patch: slopes with respect to their keys and values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.exclusive import exclusive
from ...model.gradients import require_gradients
from ...model.kinds import key_value_heads, refuse_recurrent_parts
from ...model.partial_run import refuse_late_hooks
from ...model.precision import as_double
from ...model.tokens import TextOrTokens
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..losses.scopes import Scope, chosen_predictions, scopes_by_name
from ..patch import NextTokenPatch, bind_all
from ..pieces import piece_length
from ..slopes.clean_run import clean_run
from ..slopes.directions import directions
from ..sources import SourceFunction
from ..text_sums import Reading, text_sums
from .compared_sources import compared_sources
from .head_gradients import head_gradients
from .head_result import PARTS, HeadSlopes
from .head_scores import head_scores
from .hidden_continuations import key_value_points


@exclusive
def head_slopes(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    patch: NextTokenPatch,
    *,
    sources: Sequence[str | SourceFunction] | None = None,
    scopes: Sequence[str | Scope] = ("copyable",),
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> HeadSlopes:
    """How a weak patch would change the loss through the keys or the values of each head.

    Each layer of the patch is taken by itself. The result is d(loss)/d(strength) at strength 0 of a
    patch that enters the block of that layer, if only the keys, or the values, of one head at
    patched positions move with it and all else stays as without a patch. Everything that attends to
    those positions counts, later patched positions as well as predictions. If it is negative, a
    weak patch that this head reads lowers the loss.

    With grouped queries, a head here is a head of keys and values, which several query heads share.

    **Arguments:**

    - `texts`: any iterable, read once. Intervals resample these texts.
    - `patch`: gives the layers, the mode and all other fields except the strength and the source.
        It must not have a window, nor `positions="generated"`. If its positions are numbers, each
        text must fit `max_length`.
    - `sources`: the sources to compare, by name or as functions, as in `NextTokenPatch`. By default
        they are true, current, shuffled and random, or the one of a learned write.
    - `scopes`, `max_length`, `prepend_bos`, `checkpoint`, `progress`: which predictions the loss is
        summed over, how many tokens are read at a time (by default 512, or the model's context if
        that is shorter), whether texts begin with a BOS token, a file for the sums of finished
        texts, and a progress bar, all as in `slope_map`.

    Raises `ValueError` for an unknown source or scope, a patch that is refused, if no text has a
    token to predict, if a loss is not finite, if a hook is on a block, if the file holds something
    else, or inside `torch.inference_mode`, or if the model was loaded there; `TypeError` for one
    text where many are expected, or anything but one patch; `NotImplementedError` if the two
    streams do not fit the model, or its keys, values or attention patterns have no hooks; `OSError`
    if the file cannot be written, or another process is writing it. Warns if no text has one of the
    positions that the patch names.
    """
    require_gradients("head_slopes", bridge)
    length = piece_length(bridge, max_length)
    sources, names = compared_sources(patch, sources)
    by_scope = scopes_by_name(scopes)
    refuse_late_hooks(bridge, 0)
    shape = (len(sources), len(patch.layers), len(PARTS), key_value_heads(bridge))
    # The strength changes nothing.
    patches = tuple(replace(patch, source=source, strength=1.0) for source in sources)
    bounds = tuple(filter(None, bind_all(bridge, patches)))
    # After what says more of a model that takes no patch.
    refuse_recurrent_parts(bridge)
    key_value_points(bridge, patch.layers)
    measuring = _Measuring(
        bridge,
        bounds=bounds,
        scopes=tuple(by_scope.values()),
        shape=shape,
    )
    settings = {"patches": patches, "scopes": scopes, "max_length": length, "by": "head"}
    sums = text_sums(
        bridge,
        texts,
        measuring,
        (len(by_scope), 1 + math.prod(shape)),
        Reading(length, prepend_bos, progress, checkpoint, settings, [patch]),
    )
    # Last, as some models that are refused above cannot run what this runs.
    scores = {
        name: of_heads[list(patch.layers)].cpu().double().numpy()
        for name, of_heads in vars(head_scores(bridge)).items()
    }
    return HeadSlopes(
        totals=sums[..., 1:].reshape(-1, len(by_scope), *shape),
        counts=sums[..., 0],
        **scores,
        sources=names,
        scopes=tuple(by_scope),
        layers=patch.layers,
        patches=patches,
    )


@dataclass(frozen=True)
class _Measuring:
    """Counts and slopes of some texts, for each scope."""

    bridge: TransformerBridge
    bounds: tuple[BoundPatch, ...]
    scopes: tuple[Scope, ...]
    shape: tuple[int, int, int, int]

    @torch.no_grad()
    def __call__(self, text: KnownText) -> Float[Tensor, "piece scope value"]:
        clean = clean_run(self.bridge, text)
        text = clean.text
        chosen = chosen_predictions(self.scopes, text.tokens, clean.nats, text.length)
        layers = self.bounds[0].patch.layers
        slopes = torch.zeros(len(text.tokens), len(chosen), *self.shape, dtype=torch.float64)
        for block in head_gradients(self.bridge, clean, chosen, lowest=layers[0]):
            if block.layer not in layers:
                continue
            place = layers.index(block.layer)
            by_part = directions(
                self.bounds,
                clean.streams[block.layer],
                layer=block.layer,
                position=text.column_positions(),
                text=text,
            )
            of_columns = [moved for _columns, moved in by_part]
            moved = [torch.cat(columns, dim=1) for columns in zip(*of_columns, strict=True)]
            for part in range(len(PARTS)):
                for source, change in enumerate(block.changes(part, moved)):
                    for scope, gradients in enumerate(block.gradients):
                        by_head = as_double(gradients[part] * change).sum((1, 3)).cpu()
                        slopes[:, scope, source, place, part] = by_head
        counts = chosen.sum(2).T.cpu().double()
        return torch.cat([counts[..., None], slopes.flatten(2)], dim=2)
