"""Activation patching with the next token: what one position at one layer does to a metric."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import DynamicCache

from .._progress import progress_bar, steps
from ..model.argument_types import whole_numbers
from ..model.attention_cache import shorten
from ..model.exclusive import exclusive
from ..model.fast_linears import fast_blocks
from ..model.partial_run import BLOCK_ROWS, refuse_late_hooks, run_late_blocks, run_late_rows
from ..model.points import FINAL, chosen_layers
from ..model.readout import LOGIT_ROWS, Readout, readout
from ..model.residuals import residuals
from ..model.tokens import TextOrTokens, token_batch
from ..model.vocabulary import token_strings
from .effect_map_result import EffectMap
from .known_text import KnownText
from .patch import NextTokenPatch, refuse_hooks_of_patches, require_patch
from .teacher_forcing.self_check import require_late_blocks, two_streams_hold
from .unpatched import with_unpatched

# Takes logits `[batch, pos, d_vocab]`, as the metrics of `transformer_lens.patching` do.
Metric = Callable[[Tensor], Tensor | float]


@exclusive
@torch.no_grad()
def effect_map(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    metric: Metric,
    *,
    patch: NextTokenPatch,
    layers: Iterable[int] | None = None,
    positions: Iterable[int] | Literal["all"] | None = None,
    prepend_bos: bool | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    progress: bool = True,
) -> EffectMap:
    """How much a metric changes when one position at one layer is patched with its next token.

    Position i's own prediction is made before its next token is known. So up to and including i the
    metric sees the model's own logits, and from i + 1 on those of a run with the patch at i:
    nothing leaks.

    For each layer, many positions go through the blocks from that layer up in one batch. Columns
    before the first of these positions do not run again.

    **Arguments:**

    - `text_or_tokens`: one text, or texts of one length, which are patched at the same position.
    - `metric`: from logits `[batch, pos, d_vocab]` to a number, as for `transformer_lens.patching`.
    - `patch`: how to patch: mode, strength, source and so on. It is applied at one layer and one
        position at a time, so it has no window.
    - `layers`: the patch's own by default, such as `layer=range(0, 30, 6)`.
    - `positions`: the patch's own by default, from its `first_position` on. `"all"` stands for
        every position that has a next token. Those that are given are patched wherever they are,
        except those that a learned write spares.
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
    - `text_seeds`: an integer for each text, so that each text draws its own random tokens.
    - `progress`: show a bar over cells.

    Raises `ValueError` if texts have different lengths, the patch has a window or positions that
    depend on a prompt, a layer or position does not exist, the metric does not return one number or
    is not finite without a patch, a hook is on a block that runs again, hooks of a patch are on the
    bridge, or the model is in training mode; `TypeError` for anything but one patch, or layers or
    positions that are no list; `NotImplementedError` if the model is recurrent, not a causal
    decoder, or does not run its upper blocks alone.
    """
    require_patch(patch)
    batch = token_batch(bridge, text_or_tokens, prepend_bos=prepend_bos)
    n_layers, length = int(bridge.cfg.n_layers), batch.tokens.shape[1]
    if batch.padded:
        raise ValueError(
            f"the texts have {batch.lengths.tolist()} tokens: a map needs texts of one length"
        )
    if length < 2:
        raise ValueError("the text has one token: a map needs a position with a next token")
    if patch.window is not None or patch.positions == "generated":
        raise ValueError(
            "each position is patched alone, so window and positions='generated' make no sense "
            f"here; got window={patch.window}, positions={patch.positions!r}"
        )
    layers = tuple(sorted(chosen_layers(patch.layers if layers is None else layers, n_layers)))
    positions = _chosen_positions(positions, patch, length - 1)
    refuse_hooks_of_patches(bridge)
    refuse_late_hooks(bridge, layers[0])
    n_later = len(layers) * sum(length - 1 - position for position in positions)
    read = readout(bridge).for_rows(len(batch.tokens) * n_later)
    *streams, final = residuals(bridge, batch, [*(f"{layer}_pre" for layer in layers), FINAL])
    (clean,) = _logits(read, [final])
    # A metric may change the logits that it gets.
    baseline = _value(metric, clean.clone())
    if not math.isfinite(baseline):
        raise ValueError(
            f"the metric is {baseline} without a patch, and no effect can be told from that: give "
            "one that is finite for these texts"
        )
    text = KnownText.from_batch(batch, text_seeds=text_seeds)
    text = with_unpatched(bridge, text, [patch])
    rows = []
    n_cells = len(layers) * len(positions)
    with (
        progress_bar(total=n_cells, shown=progress, unit="cell", desc="effects") as cells,
        # On average a row goes through half of the blocks.
        fast_blocks(bridge, len(batch.tokens) * n_later // 2),
    ):
        anywhere = dataclasses.replace(patch, layer=layers, positions="all", first_position=0)
        bound, columns = anywhere.bind(bridge), text.column_positions()
        for layer, resid in steps(list(zip(layers, streams, strict=True))):
            patched = bound(resid, layer=layer, position=columns, text=text)
            values = []
            for group, late in _late_runs(bridge, layer, resid, final, patched, positions):
                cells.update(len(group))
                after = [
                    variant[:, position + 1 - length :]
                    for position, variant in zip(group, late, strict=True)
                ]
                for position, later in zip(group, _logits(read, after), strict=True):
                    logits = clean.clone()
                    logits[:, position + 1 :] = later
                    values.append(_value(metric, logits) - baseline)
            rows.append(values)
    strings = token_strings(bridge, set(batch.tokens[0].tolist()))
    names = [strings[token] for token in batch.tokens[0].tolist()]
    return EffectMap(
        effect=torch.tensor(rows, dtype=torch.float64),
        baseline=baseline,
        layers=layers,
        positions=positions,
        tokens=tuple(names[i] for i in positions),
        next_tokens=tuple(names[i + 1] for i in positions),
        patch=patch,
    )


def _late_runs(
    bridge: TransformerBridge,
    layer: int,
    resid: Float[Tensor, "batch pos d_model"],
    final: Float[Tensor, "batch pos d_model"],
    patched: Float[Tensor, "batch pos d_model"],
    positions: Sequence[int],
) -> Iterator[tuple[Sequence[int], Float[Tensor, "variant batch suffix d_model"]]]:
    """`r[L]` of the end of the text with one position patched, for groups of positions.

    If rows can have masks of their own, the end starts at the group's first position and attends to
    cached columns before it; otherwise it is the whole text.
    """
    n_texts, length = resid.shape[:2]
    from_cache = two_streams_hold(bridge, layer, resid)
    whole = _Columns(bridge, layer, resid) if from_cache else None
    if not from_cache:
        require_late_blocks(bridge, layer, resid[:1], final[:1])
    index = 0
    while index < len(positions):
        start = positions[index] if from_cache else 0
        size = max(1, BLOCK_ROWS // (n_texts * (length - start)))
        group = positions[index : index + size]
        index += size
        variants = repeat(resid[:, start:], "b p d -> b v p d", v=len(group)).clone()
        for variant, position in enumerate(group):
            variants[:, variant, position - start] = patched[:, position]
        rows = rearrange(variants, "b v p d -> (b v) p d")
        late = whole.run_from(start, rows) if whole else run_late_blocks(bridge, layer, rows)
        yield group, rearrange(late, "(b v) p d -> v b p d", v=len(group))


class _Columns:
    """Keys and values of a text's columns from a layer up, after which other endings can run."""

    def __init__(
        self, bridge: TransformerBridge, layer: int, resid: Float[Tensor, "batch pos d_model"]
    ) -> None:
        self._bridge, self._layer = bridge, layer
        self._n_texts, self._length = resid.shape[:2]
        self._cache = DynamicCache()
        self._run(0, resid, self._cache)

    def run_from(
        self, start: int, resid: Float[Tensor, "rows suffix d_model"]
    ) -> Float[Tensor, "rows suffix d_model"]:
        """`r[L]` of columns from `start` on.

        `resid` holds several endings of the first text, then as many of the next.
        """
        if start == 0:
            return self._run(0, resid, DynamicCache())
        cache = copy.deepcopy(self._cache)
        shorten(cache, self._length - start)
        cache.batch_repeat_interleave(len(resid) // self._n_texts)
        return self._run(start, resid, cache)

    def _run(self, start: int, resid: Tensor, cache: DynamicCache) -> Tensor:
        position = torch.arange(start, start + resid.shape[1], device=resid.device)
        return run_late_rows(self._bridge, self._layer, resid, position=position, cache=cache)


def _logits(
    read: Readout, residuals: Sequence[Float[Tensor, "batch _ d_model"]]
) -> list[Float[Tensor, "batch _ d_vocab"]]:
    """Logits of several pieces of text, in products of the size that runs fastest."""
    rows = torch.cat([rearrange(piece, "b p d -> (b p) d") for piece in residuals])
    logits = torch.cat([read(part) for part in rows.split(LOGIT_ROWS)])
    pieces = logits.split([piece.shape[0] * piece.shape[1] for piece in residuals])
    return [
        rearrange(part, "(b p) v -> b p v", b=len(piece))
        for part, piece in zip(pieces, residuals, strict=True)
    ]


def _value(metric: Metric, logits: Float[Tensor, "batch pos d_vocab"]) -> float:
    if not callable(metric):
        raise TypeError(f"metric is a function of logits that returns a number, got {metric!r:.60}")
    value = metric(logits)
    if value is None:
        raise ValueError("the metric returned None: let it return a number")
    try:
        value = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"the metric returned {value!r:.60}; it should turn logits into one number, such as a "
            "mean"
        ) from error
    if value.numel() != 1:
        raise ValueError(
            f"the metric returned shape {tuple(value.shape)}; it should turn logits "
            f"{tuple(logits.shape)} into one number, such as a mean"
        )
    return float(value)


def _chosen_positions(
    positions: Iterable[int] | str | None, patch: NextTokenPatch, n: int
) -> tuple[int, ...]:
    """The positions to patch, of `n` with a next token, in order; by default the patch's own."""
    if positions is None:
        positions = _own_positions(patch, n)
    elif isinstance(positions, str) and positions == "all":
        positions = range(n)
    if isinstance(positions, str) or not isinstance(positions, Iterable):
        raise TypeError(f"positions must be a list of numbers or 'all', got {positions!r}")
    try:
        numbers = tuple(sorted(set(whole_numbers(positions))))
    except TypeError as error:
        raise TypeError(f"positions must be whole numbers, got {positions!r:.60}") from error
    if not numbers or numbers[0] < 0 or numbers[-1] >= n:
        raise ValueError(
            f"positions must be some of 0..{n - 1}, got {numbers}: a position needs a next token"
        )
    return numbers


def _own_positions(patch: NextTokenPatch, n: int) -> list[int]:
    own = range(n) if isinstance(patch.positions, str) else patch.positions
    positions = [position for position in own if position >= patch.first_written]
    if not positions and len(own):
        places = "all positions" if own == range(n) else f"positions {list(own)}"
        raise ValueError(
            f"the patch is at {places} and spares the first {patch.first_written}, so nothing is "
            f"left of the {n} with a next token: give a longer text, or another patch"
        )
    return positions
