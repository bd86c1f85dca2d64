"""What a sampler with a patch would have computed at every position of a given text.

When position t predicts `x[t+1]`, the positions before it are patched with their next tokens and t
itself is not. In one pass by `two_streams` wherever that is right, found by trying it on the model;
else step by step, with a warning that says so.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .adapter import readout, residual_chunks
from .counter_random import random_bits
from .intervention import BoundPatch, NextTokenPatch
from .late_blocks import refuse_late_hooks
from .patch_site import KnownText
from .probe import two_streams_hold, what_was_raised
from .step_by_step import decoded_steps, recomputed_steps
from .token_batch import TextOrTokens, TokenBatch, token_batch
from .two_streams import MAX_CHUNK, two_streams

Patches = NextTokenPatch | None | Sequence[NextTokenPatch | None]

# Rows that go through a block at a time, and rows of logits that are held at a time.
_BLOCK_ROWS = 512
_LOGIT_ROWS = 128


def teacher_forced_log_probs(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    patch: Patches,
    *,
    attention_mask: Tensor | None = None,
    prepend_bos: bool | None = None,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    max_length: int | None = None,
    overlap: int | None = None,
    enable_grad: bool = False,
) -> Float[Tensor, "*patch batch next"]:
    """Log-probability of each next token, predicted with the positions before it patched.

    Entry i is `log p(x[i+1])` in nats, NaN where `x[i]` or `x[i+1]` is padding. Without gradients
    no `[batch, pos, d_vocab]` tensor exists at any time.

    **Arguments:**

    - `text_or_tokens`: a text, a list of texts, token ids or an id tensor.
    - `patch`: one, or several to compare; None is the model without a patch. All share the blocks
        below the lowest patched layer, and those with the same lowest layer and window go through
        the blocks above in one batch.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens, for an id tensor that is padded on
        either side.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `prompt_length`: how many tokens of each text were given, for `positions="generated"`.
    - `text_seeds`: an integer for each text, so that texts draw random tokens of their own; without
        them position i has the same draw in every text.
    - `max_length`: how many tokens the model reads at a time, its context by default. Longer texts
        are read in windows of that length, each as a text of its own.
    - `overlap`: how many tokens a window shares with the one before it, which predicts there, since
        it has seen more. Half of `max_length` by default.
    - `enable_grad`: keep the graph, to differentiate by whatever a mode or source, or the model's
        blocks, depend on.

    **Returns:** `[batch, pos - 1]`, or `[patch, batch, pos - 1]` for a sequence of patches.

    Raises `ValueError` when a hook is on a patched block or one above it, when `positions` would
    have to be counted across windows, where logits are not a number, or for input that
    `token_batch` refuses;
    `NotImplementedError` for a model whose logits are not read off one residual stream.
    """
    with torch.set_grad_enabled(enable_grad):
        batch = token_batch(
            bridge,
            text_or_tokens,
            prepend_bos=prepend_bos,
            attention_mask=attention_mask,
            any_length=True,
        )
        aligned = _pad_right(batch)
        following = aligned.tokens.roll(-1, dims=1)

        def log_probs(logits: Tensor, start: int) -> Tensor:
            targets = following[:, start : start + logits.shape[2]]
            # Half precision loses too much in the sum over the vocabulary.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            chosen = logits.gather(-1, targets.expand(len(logits), -1, -1)[..., None])
            return chosen[..., 0] - logits.logsumexp(-1)

        passes = _Passes.plan(
            bridge, _listed(patch), aligned, max_length, overlap, prompt_length, text_seeds
        )
        values = _pad_like(batch, passes.read(log_probs))[..., :-1]
        predicted = batch.mask[:, :-1] & batch.mask[:, 1:]
        _require_numbers(values.isnan() & predicted)
        values = values.masked_fill(~predicted, torch.nan)
    return values if isinstance(patch, Sequence) else values[0]


def teacher_forced_logits(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    patch: Patches,
    *,
    attention_mask: Tensor | None = None,
    prepend_bos: bool | None = None,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    max_length: int | None = None,
    overlap: int | None = None,
    enable_grad: bool = False,
) -> Float[Tensor, "*patch batch pos d_vocab"]:
    """Logits at every position, computed with the positions before it patched.

    Those at padding are NaN. For log-probabilities of the text itself `teacher_forced_log_probs`
    needs far less memory.

    Arguments and errors as of `teacher_forced_log_probs`.

    **Returns:** `[batch, pos, d_vocab]`, or `[patch, batch, pos, d_vocab]` for a sequence of
    patches.
    """
    with torch.set_grad_enabled(enable_grad):
        batch = token_batch(
            bridge,
            text_or_tokens,
            prepend_bos=prepend_bos,
            attention_mask=attention_mask,
            any_length=True,
        )
        passes = _Passes.plan(
            bridge,
            _listed(patch),
            _pad_right(batch),
            max_length,
            overlap,
            prompt_length,
            text_seeds,
        )
        values = _pad_like(batch, passes.read(lambda logits, _start: logits))
        _require_numbers(values.detach().amax(-1).isnan() & batch.mask)
        values = values.masked_fill(~batch.mask[..., None], torch.nan)
    return values if isinstance(patch, Sequence) else values[0]


@dataclass(frozen=True)
class _Passes:
    """Everything that has to be run: each window of the texts under each patch.

    Attributes:
        patches: bound to the model.
        texts: each window of the texts, without padding on the left.
        skip: how many positions of each window the window before it has read.
    """

    bridge: TransformerBridge
    patches: tuple[BoundPatch | None, ...]
    texts: tuple[KnownText, ...]
    skip: tuple[int, ...]

    @classmethod
    def plan(
        cls,
        bridge: TransformerBridge,
        patches: Sequence[NextTokenPatch | None],
        batch: TokenBatch,
        max_length: int | None,
        overlap: int | None,
        prompt_length: int | Tensor | None,
        text_seeds: Tensor | None,
    ) -> "_Passes":
        if not patches:
            raise ValueError("the list of patches is empty")
        length = batch.tokens.shape[1]
        starts, size, skip = _windows(length, int(bridge.cfg.n_ctx), max_length, overlap)
        counted = prompt_length is not None or any(p and p.positions != "all" for p in patches)
        if len(starts) > 1 and counted:
            raise ValueError(
                f"positions and prompt_length count from a text's first token, but {length} tokens "
                f"are read in windows of {size}: score texts that fit, or patch all positions"
            )
        whole = KnownText.from_batch(batch, prompt_length=prompt_length, text_seeds=text_seeds)
        texts = []
        for start in starts:
            tokens = whole.tokens[:, start : start + size]
            known = (whole.length - start).clamp(1, tokens.shape[1])
            seed = random_bits(start, whole.seed) if start else whole.seed
            texts.append(KnownText(tokens, whole.first, known, whole.prompt_length, seed))
        bounds = [None if p is None else p.bind(bridge) for p in patches]
        return cls(bridge, tuple(bounds), tuple(texts), (0, *[skip] * (len(texts) - 1)))

    def read(
        self, reduce: Callable[[Tensor, int], Shaped[Tensor, "patch batch chunk *rest"]]
    ) -> Shaped[Tensor, "patch batch pos *rest"]:
        """`reduce(logits, start)` of the logits from position `start` on, a few at a time."""
        windows, column = [], 0
        for text, skip in zip(self.texts, self.skip, strict=True):
            read: dict[int, Tensor] = {}
            first = column - skip
            for members, chunks in self._logits(text):
                parts, start = [], first
                for logits in chunks:
                    parts.append(reduce(logits, start))
                    start += logits.shape[2]
                read |= dict(zip(members, torch.cat(parts, dim=2)[:, :, skip:], strict=True))
            windows.append(torch.stack([read[i] for i in range(len(self.patches))]))
            column = first + text.tokens.shape[1]
        return torch.cat(windows, dim=2)

    def _logits(self, text: KnownText) -> Iterator[tuple[list[int], Iterator[Tensor]]]:
        """For patches that go through the model together: which they are, and their logits."""
        groups = self._groups(text.tokens.shape[1])
        layers = sorted({layer for layer, _ in groups})
        refuse_late_hooks(self.bridge, layers[0])
        batch = TokenBatch(text.tokens, torch.ones_like(text.tokens, dtype=torch.bool))
        labels = [f"{layer}_pre" for layer in layers]
        chunks = [chunk for _start, chunk in residual_chunks(self.bridge, batch, labels)]
        streams = {
            layer: torch.cat([chunk[label] for chunk in chunks], dim=1)
            for layer, label in zip(layers, labels, strict=True)
        }
        for (layer, window), members in groups.items():
            bounds = [self.patches[i] for i in members]
            if two_streams_hold(self.bridge, layer, streams[layer]):
                yield members, self._in_two_streams(bounds, streams[layer], text, layer, window)
            else:
                yield members, self._step_by_step(bounds, text, layer)

    def _groups(self, length: int) -> dict[tuple[int, int | None], list[int]]:
        """The patches by lowest layer and window, None where it spans the text."""
        groups: dict[tuple[int, int | None], list[int]] = {}
        for i, bound in enumerate(self.patches):
            if bound is not None:
                window = bound.patch.window
                spans = window is None or window >= length - 1
                key = (bound.patch.layers[0], None if spans else window)
                groups.setdefault(key, []).append(i)
        # The model without a patch is cheapest to run from high up.
        top = max(groups, key=lambda key: key[0], default=(int(self.bridge.cfg.n_layers) - 1, None))
        unpatched = [i for i, bound in enumerate(self.patches) if bound is None]
        return {**groups, top: groups.get(top, []) + unpatched}

    def _in_two_streams(
        self,
        bounds: Sequence[BoundPatch | None],
        resid: Float[Tensor, "batch pos d_model"],
        text: KnownText,
        layer: int,
        window: int | None,
    ) -> Iterator[Float[Tensor, "patch batch chunk d_vocab"]]:
        n_texts, copies = len(bounds) * len(resid), 2 + (window or 0)
        chunk_size = min(max(_BLOCK_ROWS // (n_texts * copies), 32 // copies, 1), MAX_CHUNK)
        read = readout(self.bridge)
        for late in two_streams(
            self.bridge, bounds, resid, text, layer=layer, window=window, chunk_size=chunk_size
        ):
            for rows in late.split(max(1, _LOGIT_ROWS // n_texts), dim=2):
                yield read(rows)

    def _step_by_step(
        self, bounds: Sequence[BoundPatch | None], text: KnownText, layer: int
    ) -> Iterator[Float[Tensor, "patch batch 1 d_vocab"]]:
        steps = recomputed_steps if torch.is_grad_enabled() else decoded_steps
        warnings.warn(
            f"{self.bridge.cfg.architecture} does not run two copies of a text side by side from "
            f"block {layer} up as it runs one{what_was_raised(self.bridge, layer)}: every position "
            "is predicted in a step of its own, which is exact, but slow",
            stacklevel=5,
        )
        return steps(self.bridge, bounds, text)


def _require_numbers(missing: Bool[Tensor, "patch batch _"]) -> None:
    if missing.any():
        patch, text, position = missing.nonzero()[0].tolist()
        raise ValueError(
            f"the model's logits are not a number, first under patch {patch} in text {text} at "
            f"column {position}: look for a patch that writes such values, or a half-precision "
            "overflow"
        )


def _listed(patch: Patches) -> Sequence[NextTokenPatch | None]:
    return [patch] if patch is None or isinstance(patch, NextTokenPatch) else patch


def _windows(
    length: int, context: int, max_length: int | None, overlap: int | None
) -> tuple[range, int, int]:
    """Where windows start, how long they are and by how much they overlap."""
    size = context if max_length is None else max_length
    if not 1 <= size <= context:
        raise ValueError(f"max_length must be from 1 to the model's context {context}, got {size}")
    shared = size // 2 if overlap is None else overlap
    if not 0 <= shared < size:
        raise ValueError(f"overlap must be from 0 to {size - 1}, below max_length; got {shared}")
    return range(0, max(length - shared, 1), size - shared), size, shared


def _pad_right(batch: TokenBatch) -> TokenBatch:
    """The same texts with their padding on the right, where causal models need no mask for it."""
    if not batch.left_padded:
        return batch
    width = int(batch.lengths.max())
    rows = [
        torch.cat([tokens[mask], tokens[~mask]])[:width]
        for tokens, mask in zip(batch.tokens, batch.mask, strict=True)
    ]
    column = torch.arange(width, device=batch.tokens.device)
    return TokenBatch(torch.stack(rows), column < batch.lengths[:, None])


def _pad_like(
    batch: TokenBatch, values: Shaped[Tensor, "patch batch pos *rest"]
) -> Shaped[Tensor, "patch batch column *rest"]:
    """Values of positions, put where `batch` has those positions; anything at padding."""
    if not batch.left_padded:
        return values
    row = torch.arange(len(batch.tokens), device=values.device)
    return values[:, row[:, None], batch.positions.to(values.device)]
