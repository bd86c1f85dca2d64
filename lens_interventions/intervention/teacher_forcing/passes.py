"""The passes through the model that texts of any length take under several patches.

Texts beyond the model's context are read in pieces. Patches with the same lowest layer and window
go through the blocks above it together, and all share the blocks below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_bits
from ..._progress import steps
from ...model.argument_types import require_whole_numbers
from ...model.capabilities import frequencies_change_after
from ...model.fast_linears import fast_blocks
from ...model.hooks import Hook, hooked
from ...model.partial_run import refuse_late_hooks
from ...model.points import layer_label
from ...model.readout import readout, refuse_readout_hooks
from ...model.residuals import residual_chunks
from ...model.text_pieces import bos_id
from ...model.tokens import TokenBatch
from ...model.user_hooks import has_user_hooks
from ...model.user_warnings import warn_user
from ..bound_patch import BoundPatch
from ..generation.decoder import require_decodable
from ..known_text import KnownText
from ..patch import NextTokenPatch, bind_all, refuse_hooks_of_patches, warn_if_out_of_reach
from ..unpatched import with_unpatched
from .logit_rows import LogitRows, Reduce
from .row_hooks import GivenHook, hooks_by_row
from .self_check import two_streams_hold, what_was_raised
from .step_by_step import decoded_steps, recomputed_steps
from .two_streams import positions_at_once, two_streams


@dataclass(frozen=True)
class TextPasses:
    """All that has to be run: each piece of the texts under each patch.

    Attributes:
        bridge: the model.
        patches: the patches, bound to the model; None is the model without a patch.
        texts: each piece of the texts, without padding on the left.
        skip: how many positions of each piece have been read: the BOS token that every piece
            begins with, and those that it shares with the piece before it.
        fwd_hooks: the user's hooks that act on every row alone.
    """

    bridge: TransformerBridge
    patches: tuple[BoundPatch | None, ...]
    texts: tuple[KnownText, ...]
    skip: tuple[int, ...]
    fwd_hooks: tuple[Hook, ...]

    @classmethod
    def plan(
        cls,
        bridge: TransformerBridge,
        patches: Sequence[NextTokenPatch | None],
        batch: TokenBatch,
        *,
        max_length: int | None = None,
        overlap: int | None = None,
        prompt_length: int | Tensor | None = None,
        text_seeds: Tensor | None = None,
        fwd_hooks: Sequence[GivenHook] = (),
    ) -> "TextPasses":
        if not patches:
            raise ValueError(
                "the list of patches is empty: pass None for the model without a patch"
            )
        for patch in filter(None, patches):
            warn_if_out_of_reach(patch, batch.lengths)
        length = batch.tokens.shape[1]
        size = int(bridge.cfg.n_ctx) if max_length is None else max_length
        require_whole_numbers(max_length=size, overlap=0 if overlap is None else overlap)
        lead = _lead(batch.tokens, size, bos_id(bridge))
        starts, skip = _pieces(length, int(bridge.cfg.n_ctx), size, overlap, lead)
        counted = prompt_length is not None or any(p and p.positions != "all" for p in patches)
        if len(starts) > 1 and counted:
            raise ValueError(
                f"positions and prompt_length count from a text's first token, but {length} tokens "
                f"are read in pieces of {size}: score texts that fit, or leave out prompt_length "
                "and patch all positions"
            )
        whole = KnownText.from_batch(batch, prompt_length=prompt_length, text_seeds=text_seeds)
        texts = []
        for start in starts:
            parts = [whole.tokens[:, :lead], whole.tokens[:, start + lead : start + size]]
            tokens = torch.cat(parts, dim=1)
            known = (whole.length - start).clamp(1, tokens.shape[1])
            seed = random_bits(start, whole.seed) if start else whole.seed
            texts.append(KnownText(tokens, whole.first, known, whole.prompt_length, seed))
        bounds = bind_all(bridge, patches)
        skips = (0, *[skip] * (len(texts) - 1))
        hooks = hooks_by_row(bridge, fwd_hooks, length, patches)
        return cls(bridge, tuple(bounds), tuple(texts), skips, tuple(hooks))

    def read(
        self,
        reduce: Reduce,
        following: Int[Tensor, "batch pos"],
        where: Bool[Tensor, "batch pos"] | None = None,
    ) -> Shaped[Tensor, "patch batch pos *rest"]:
        """`reduce` of the logits and of `following` at all positions, few rows at a time.

        With `where`, the unembedding reads only those rows, and the others are NaN.
        """
        pieces, column = [], 0
        refuse_hooks_of_patches(self.bridge)
        if lowest := [bound.patch.layers[0] for bound in self.patches if bound]:
            refuse_late_hooks(self.bridge, min(lowest))
        else:
            refuse_readout_hooks(self.bridge)
        wanted = torch.ones_like(following, dtype=torch.bool) if where is None else where
        n_rows = sum(text.tokens.numel() for text in self.texts) * len(self.patches)
        with hooked(self.bridge, self.fwd_hooks), fast_blocks(self.bridge, n_rows):
            for text, skip in steps(list(zip(self.texts, self.skip, strict=True))):
                first = column - skip
                column = first + text.tokens.shape[1]
                # The piece before has read the shared positions.
                here = wanted[:, first:column].clone()
                here[:, :skip] = False
                rows = LogitRows(reduce, following[:, first:column], here)
                read: dict[int, Tensor] = {}
                for members, chunks in self._values(text, rows):
                    # Whole logits are large, so no list of parts outlives the line that joins them.
                    values = torch.cat(list(chunks), dim=2)
                    read |= dict(zip(members, values[:, :, skip:], strict=True))
                pieces.append(torch.stack([read[i] for i in range(len(self.patches))]))
        return torch.cat(pieces, dim=2) if len(pieces) > 1 else pieces[0]

    def _values(
        self, text: KnownText, rows: LogitRows
    ) -> Iterator[tuple[list[int], Iterator[Shaped[Tensor, "patch batch chunk *rest"]]]]:
        """The numbers of patches that go through the model together, and their values."""
        # Beyond such a length each beginning of a text has an unpatched run of its own.
        if text.tokens.shape[1] <= frequencies_change_after(self.bridge):
            patches = [bound.patch for bound in self.patches if bound]
            text = with_unpatched(self.bridge, text, patches)
        groups = self._groups(text.tokens.shape[1])
        layers = sorted({layer for layer, _ in groups})
        batch = TokenBatch.unpadded(text.tokens)
        labels = [layer_label(layer, int(self.bridge.cfg.n_layers)) for layer in layers]
        chunks = [chunk for _start, chunk in residual_chunks(self.bridge, batch, labels)]
        streams = {
            layer: torch.cat([chunk[label] for chunk in chunks], dim=1)
            for layer, label in zip(layers, labels, strict=True)
        }
        del chunks  # as large as what was joined from them
        for (layer, window), members in steps(groups.items()):
            bounds = [self.patches[i] for i in members]
            if not any(bounds):
                read = self._as_it_is(streams[layer].expand(len(members), -1, -1, -1), rows)
            elif two_streams_hold(self.bridge, layer, streams[layer], window=window):
                read = self._in_two_streams(bounds, streams[layer], text, rows, layer, window)
            else:
                read = self._step_by_step(bounds, text, rows, layer, window)
            yield members, read

    def _groups(self, length: int) -> dict[tuple[int, int | None], list[int]]:
        """The patches by lowest layer and window; None stands for a window that spans the text.

        If no patch is bound, the layer is that of the last residual.
        """
        groups: dict[tuple[int, int | None], list[int]] = {}
        for i, bound in enumerate(self.patches):
            if bound is not None:
                key = (bound.patch.layers[0], bound.patch.window_in(length))
                groups.setdefault(key, []).append(i)
        # The model without a patch is cheapest to run from a high layer.
        top = max(groups, key=lambda key: key[0], default=(int(self.bridge.cfg.n_layers), None))
        unpatched = [i for i, bound in enumerate(self.patches) if bound is None]
        return {**groups, top: groups.get(top, []) + unpatched}

    def _as_it_is(
        self, final: Float[Tensor, "patch batch pos d_model"], rows: LogitRows
    ) -> Iterator[Shaped[Tensor, "patch batch pos *rest"]]:
        """The values of the model's own run, in which all of the user's hooks acted."""
        n_read = len(final) * int(rows.where.sum())
        return rows.values([final], readout(self.bridge).for_rows(n_read))

    def _in_two_streams(
        self,
        bounds: Sequence[BoundPatch | None],
        resid: Float[Tensor, "batch pos d_model"],
        text: KnownText,
        rows: LogitRows,
        layer: int,
        window: int | None,
    ) -> Iterator[Shaped[Tensor, "patch batch chunk *rest"]]:
        chunk_size = positions_at_once(len(bounds) * len(resid), window)
        # The lens of a patch reads every position, even if only some logits are wanted.
        lens = any(bound and bound.patch.reads_lens for bound in bounds)
        n_read = text.tokens.numel() if lens else int(rows.where.sum())
        read = readout(self.bridge).for_rows(len(bounds) * n_read)
        bounds = [bound and replace(bound, readout=read) for bound in bounds]
        chunks = two_streams(self.bridge, bounds, resid, text, layer=layer, chunk_size=chunk_size)
        late = steps(chunks, total=-(-resid.shape[1] // chunk_size))
        return rows.values(late, read)

    def _step_by_step(
        self,
        bounds: Sequence[BoundPatch | None],
        text: KnownText,
        rows: LogitRows,
        layer: int,
        window: int | None,
    ) -> Iterator[Shaped[Tensor, "patch batch 1 *rest"]]:
        # The decoder would show a hook one column at a time.
        hooked = has_user_hooks(self.bridge)
        in_steps = recomputed_steps if torch.is_grad_enabled() or hooked else decoded_steps
        require_decodable(self.bridge)
        raised = what_was_raised(self.bridge, layer, window=window)
        warn_user(
            f"{self.bridge.cfg.architecture} does not run two copies of a text side by side from "
            f"block {layer} up as it runs one{raised}: every position "
            "is predicted in a step of its own, which is exact but slow",
        )
        logits = in_steps(self.bridge, bounds, text)
        return rows.values(steps(logits, total=text.tokens.shape[1]), lambda found: found)


def _lead(tokens: Int[Tensor, "batch pos"], size: int, bos: int | None) -> int:
    """How many tokens every piece begins with: the BOS token if the texts do, else none.

    Some models read a text without it far worse (`model.text_pieces.cut`).
    """
    begins = tokens[:, 0] == (-1 if bos is None else bos)
    if tokens.shape[1] > size and bool(begins.any()) and not bool(begins.all()):
        raise ValueError(
            f"some texts begin with the BOS token and some do not, and texts of more than {size} "
            "tokens are read in pieces, which begin as the texts do: score them in two calls"
        )
    return int(begins.all())


def _pieces(
    length: int, context: int, size: int, overlap: int | None, lead: int
) -> tuple[range, int]:
    """Where pieces of `size` tokens start, and how many tokens of a piece others have read.

    Each piece begins with the first `lead` tokens of the text.
    """
    if not 1 + lead <= size <= context:
        raise ValueError(
            f"max_length must be from {1 + lead}{' (with the BOS token)' if lead else ''} to the "
            f"model's context {context}, got {size}"
        )
    step = size - lead
    shared = step // 2 if overlap is None else overlap
    if not 0 <= shared < step:
        raise ValueError(
            f"overlap must be from 0 to {step - 1}, below max_length={size}"
            f"{' without the BOS token that each piece begins with' if lead else ''}; got {shared}"
        )
    return range(0, max(length - lead - shared, 1), step - shared), lead + shared
