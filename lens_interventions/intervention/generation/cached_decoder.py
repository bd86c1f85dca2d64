"""Patched decoding with a cache of keys and values, which recomputes only what a token changes.

When `x[t]` becomes known, position t - 1 turns from the clean row that predicted it into a patched
one, and its late keys and values, already cached, are void. So each step shortens the cache by one
position and runs the last two positions through the blocks from the patched layer up: t - 1
patched, t clean. Nothing changes in the blocks below the layer, so they run on t alone, with a
cache of their own.
"""

import importlib.metadata
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformers import Cache

from ...model.attention_cache import as_argument, shorten
from ...model.attention_masks import additive_masks
from ...model.bypass import Unwrapping
from ...model.hooks import HookFunction, change_layers, keep, last_logits_only, temporary_hooks
from ...model.kinds import weight_dtype
from ...model.partial_run import only_blocks_below, only_blocks_from
from ...model.points import hook_name
from ...model.roomy_cache import roomy_cache
from ...model.user_hooks import lasting_hooks_on
from ..known_text import KnownText
from .patch_batch import PatchBatch


def first_of_two_parts(bridge: TransformerBridge, patches: PatchBatch) -> int:
    """The block from which on patched rows run by themselves; 0 if all blocks run together.

    Blocks up to the patched one are called in both parts, so a user's torch hook on one of them
    would act twice. With such a hook, all blocks run together.
    """
    layer = patches.layers[0] if patches.layers else 0
    return 0 if lasting_hooks_on(list(bridge.blocks)[: layer + 1]) else layer


class CacheError(RuntimeError):
    """The model does not use its cache of keys and values as expected."""


class CachedDecoder:
    """Logits at the end of growing texts on one bridge, with a patch for each row.

    Several patches share the prompts' work below the lowest patched layer.

    **Arguments:**

    - `bridge`: the model.
    - `patches`: the patches, each on all the prompts.
    - `chunk_size`: how many positions of a prompt go through the model at a time.
    - `record`: labels of the residual points to keep at the predicting positions.

    Attributes:
        recorded: `[batch, d_model]` of each point of `record` at the position that predicted last,
            by label.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        patches: PatchBatch,
        *,
        chunk_size: int,
        record: Sequence[str] = (),
    ) -> None:
        self.recorded: dict[str, Float[Tensor, "batch d_model"]] = {}
        self._bridge, self._patches, self._chunk_size = bridge, patches, chunk_size
        n_layers = int(bridge.cfg.n_layers)
        self._recorded_at = {label: hook_name(label, n_layers) for label in record}
        # Looking up a hook by its name takes longer than running a block.
        self._points = bridge.hook_dict
        self._split = first_of_two_parts(bridge, patches)
        # A cache made with the model's config drops what leaves a sliding window, and then cannot
        # be shortened.
        self._below, self._above = roomy_cache(), roomy_cache()
        self._n_below = self._n_above = 0  # columns in each
        self._stop = 0  # columns that the run in progress knows
        self._patched_early = False
        # Rows of r[split] that will go through the blocks above once more.
        self._waiting: Float[Tensor, "batch pos d_model"] | None = None
        # The number of copies of the prompts while the patches still share them.
        self._copies = len(patches.bounds)
        self._unwrapped = Unwrapping(bridge)
        self._dtype = weight_dtype(bridge)
        self._options = last_logits_only(bridge)

    @torch.no_grad()
    def logits(self, text: KnownText) -> Float[Tensor, "batch d_vocab"]:
        """Logits at the last known position of every text, which is the last column.

        The first call reads the prompts; later ones expect the same texts, one column longer.

        Raises `CacheError` if the model does not fill the cache or it cannot be shortened.
        """
        n_columns = text.tokens.shape[1]
        self._patched_early = self._can_patch_early()
        with temporary_hooks(self._hooks(text)), self._unwrapped():
            while self._stop < n_columns:
                self._stop = min(self._stop + self._chunk_size, n_columns)
                logits = self._advance(text)
        self._end_sharing()
        self._shorten()
        return logits

    def keep(self, rows: Int[Tensor, " row"]) -> None:
        """Continue with these rows only."""
        self._patches = self._patches.keep(rows)
        self._below.batch_select_indices(rows)
        self._above.batch_select_indices(rows)
        if self._waiting is not None:
            self._waiting = self._waiting[rows]

    def _advance(self, text: KnownText) -> Float[Tensor, "batch d_vocab"]:
        """Bring both caches to `_stop` columns."""
        above: Any = nullcontext()
        if self._split > 0:
            self._waiting = joined(self._waiting, self._run_below(text))
            resid = self._waiting[:, self._n_above - self._stop :]
            if self._patched_early:
                resid = self._patch(resid, layer=self._split, text=text)
            above = only_blocks_from(self._bridge, self._split, resid)
        with above:
            logits = self._run(text.tokens[:, self._n_above : self._stop], text.first, self._above)
        self._n_above = self._stop
        _require_length(self._bridge, self._above, self._split, self._stop)
        if self._waiting is not None:
            self._waiting = self._waiting[:, -self._patches.reach() :]
        return logits[:, -1]

    def _run_below(self, text: KnownText) -> Float[Tensor, "batch pos d_model"]:
        """`r[split]` of the new columns."""
        rows = slice(len(text.tokens) // self._copies)
        with only_blocks_below(self._bridge, self._split):
            resid = self._run(
                text.tokens[rows, self._n_below : self._stop], text.first[rows], self._below
            )
        self._n_below = self._stop
        _require_length(self._bridge, self._below, 0, self._stop)
        return repeat(resid, "prompt pos d -> (copy prompt) pos d", copy=self._copies)

    def _run(
        self, tokens: Int[Tensor, "batch pos"], first: Int[Tensor, " batch"], cache: Cache
    ) -> Float[Tensor, "batch _ _"]:
        """Run the bridge on the last known columns; the others are cached."""
        key = torch.arange(self._stop, device=tokens.device)
        column = key[-tokens.shape[1] :]
        real = (key <= column[:, None]) & (key >= first[:, None, None])
        # Padding attends to itself: no row may be left without a key.
        visible = real | (key == column[:, None])
        masks = additive_masks(self._bridge, visible, column[:, None] - key, self._dtype)
        return self._bridge(
            tokens,
            attention_mask=masks,
            position_ids=(column - first[:, None]).clamp(min=0),
            **as_argument(self._bridge, cache),
            **self._options,
        )

    def _end_sharing(self) -> None:
        if self._copies > 1 and self._n_below > 0:
            n_prompts = self._patches.counts[0]
            rows = torch.arange(n_prompts, device=self._bridge.cfg.device).repeat(self._copies)
            self._below.batch_select_indices(rows)
        self._copies = 1

    def _shorten(self) -> None:
        """Drop the positions that the next token will change from the cache."""
        changed = self._patches.reach(self._stop + 1)
        if changed == 0:
            return
        kept = max(self._stop - changed, 0)
        if kept == 0:
            self._above = roomy_cache()
        else:
            shorten(self._above, self._stop - kept)
            _require_length(self._bridge, self._above, self._split, kept)
        self._n_above = kept

    def _can_patch_early(self) -> bool:
        """Whether the lowest patched block may get its residual patched, without a hook.

        With a hook on it, the block would run with all its components. A user's hooks on the same
        point come before the patch.
        """
        return (
            self._split > 0 and not self._points[f"blocks.{self._split}.hook_resid_pre"].fwd_hooks
        )

    def _patch(self, resid: Tensor, *, layer: int, text: KnownText) -> Tensor:
        columns = slice(self._stop - resid.shape[1], self._stop)
        position = text.column_positions()[:, columns]
        return self._patches(resid, layer=layer, position=position, text=text)

    def _hooks(self, text: KnownText) -> list[tuple[HookPoint, HookFunction]]:
        def predicting(resid: Tensor) -> Tensor:
            return resid[:, -1].repeat(len(text.tokens) // len(resid), 1)

        layers = self._patches.layers[1:] if self._patched_early else self._patches.layers
        hooks = [
            *change_layers(layers, partial(self._patch, text=text)),
            *(
                (name, keep(self.recorded, label, predicting))
                for label, name in self._recorded_at.items()
            ),
        ]
        return [(self._points[name], hook) for name, hook in hooks]


def joined(
    before: Shaped[Tensor, "batch _ *rest"] | None, new: Shaped[Tensor, "batch _ *rest"]
) -> Shaped[Tensor, "batch column *rest"]:
    """New columns after those before them, if there are any."""
    return new if before is None else torch.cat([before, new], dim=1)


def _require_length(bridge: TransformerBridge, cache: Cache, layer: int, expected: int) -> None:
    length = cache.get_seq_length(layer)
    if length == expected:
        return
    installed = ("transformers", "transformer_lens")
    versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in installed)
    raise CacheError(
        f"the cache of keys and values holds {length} positions where it should hold {expected}: "
        f"either {bridge.cfg.architecture} does not keep one that can be shortened by a position, "
        f"as recurrent models do not, or {versions} do not fit each other; docs/how-to/versions.md "
        "has those that do"
    )
