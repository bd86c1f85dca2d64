"""Log-probabilities and logits that a sampler with a patch computes, at every position of a text.

When position t predicts `x[t+1]`, the positions before it are patched with their next tokens and t
itself is not. One pass by `two_streams` computes this if a trial on the model shows that it is
right there; otherwise every position takes a step of its own, and a warning says so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._progress import share_shown
from ...lens.distributions import log_probs_of
from ...model.exclusive import exclusive
from ...model.gradients import require_gradients
from ...model.tokens import TextOrTokens, TokenBatch, token_batch
from ...model.user_hooks import moved_right
from ..patch import NextTokenPatch, listed
from .passes import TextPasses
from .row_hooks import GivenHook

Patches = NextTokenPatch | None | Sequence[NextTokenPatch | None]


@exclusive
def teacher_forced_log_probs(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    patch: Patches = None,
    *,
    attention_mask: Tensor | None = None,
    prepend_bos: bool | None = None,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    max_length: int | None = None,
    overlap: int | None = None,
    fwd_hooks: Sequence[GivenHook] = (),
    where: Tensor | None = None,
    enable_grad: bool = False,
    progress: bool = False,
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
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
    - `prompt_length`: how many tokens of each text were given, for `positions="generated"`.
    - `text_seeds`: an integer for each text, so that each text draws its own random tokens; without
        them position i has the same draw in every text.
    - `max_length`: how many tokens the model reads at a time, its context by default. Longer texts
        are read in pieces of that length, each as a separate text, which begins with the BOS token
        if the text does.
    - `overlap`: how many tokens a piece shares with the one before it, which predicts there, since
        it has seen more. By default half of what a piece holds beside a BOS token.
    - `fwd_hooks`: hooks of your own in the same runs, `[(name, fn)]`, that change every position
        in the same way and independently of the others: an SAE, an ablated direction, a steering
        vector. They come before the patch at the same point. From the patched block up they get
        rows `[patch * batch, row, ...]`, which are not a text in order.
    - `where`: bools `[batch, next]`, True at the wanted entries. The others are NaN and need no
        product with the unembedding, which is most of the work if the vocabulary is large.
    - `enable_grad`: keep the graph, to differentiate by whatever a mode or source, or the model's
        blocks, depend on; not by the embedding or the unembedding, which are read without it.
    - `progress`: show the share that is done.

    **Returns:** `[batch, pos - 1]`, or `[patch, batch, pos - 1]` for a sequence of patches.

    Raises `ValueError` if another hook is on a patched block or one above it, if hooks of a patch
    are on any, if there is any hook while there is padding on the left, if texts that are read in
    pieces do not all begin with a BOS token or all without, one of `fwd_hooks` does not act by
    position, `positions` would have to be counted across pieces, `prompt_length` exceeds a text,
    `where` has another shape, logits are not a number, the model is in training mode, ids are not
    in the vocabulary, those that a source returns, too, or `enable_grad` is set inside
    `torch.inference_mode` or for a model that was loaded there; `TypeError` if the input is neither
    text nor ids, or for anything else than patches; `NotImplementedError` if the model's logits are
    not read off one residual stream. Warns if no text has one of the positions that a patch names.
    """
    if enable_grad:
        require_gradients("enable_grad=True", bridge)
    with torch.set_grad_enabled(enable_grad), share_shown("teacher forcing", shown=progress):
        batch, aligned, passes = _planned(
            bridge,
            text_or_tokens,
            patch,
            attention_mask=attention_mask,
            prepend_bos=prepend_bos,
            prompt_length=prompt_length,
            text_seeds=text_seeds,
            max_length=max_length,
            overlap=overlap,
            fwd_hooks=fwd_hooks,
        )
        predicted = batch.mask[:, :-1] & batch.mask[:, 1:]
        if where is not None:
            _require_entries(where, predicted)
            predicted &= where.to(predicted.device)
        # Column numbers become positions.
        row, column = predicted.nonzero(as_tuple=True)
        rows = torch.zeros_like(aligned.mask)
        rows[row, batch.positions[row, column]] = True
        following = aligned.tokens.roll(-1, dims=1)
        values = _pad_like(batch, passes.read(log_probs_of, following, rows))[..., :-1]
        _require_numbers(values.isnan() & predicted)
        values = values.masked_fill(~predicted, torch.nan)
    return values if isinstance(patch, Sequence) else values[0]


@exclusive
def teacher_forced_logits(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    patch: Patches = None,
    *,
    attention_mask: Tensor | None = None,
    prepend_bos: bool | None = None,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    text_seeds: Int[Tensor, " batch"] | None = None,
    max_length: int | None = None,
    overlap: int | None = None,
    fwd_hooks: Sequence[GivenHook] = (),
    enable_grad: bool = False,
    progress: bool = False,
) -> Float[Tensor, "*patch batch pos d_vocab"]:
    """Logits at every position, computed with the positions before it patched.

    Those at padding are NaN. For log-probabilities of the text itself `teacher_forced_log_probs`
    needs far less memory.

    **Arguments:**

    - `text_or_tokens`: a text, a list of texts, token ids or an id tensor.
    - `patch`: one, or several to compare; None is the model without a patch. All share the blocks
        below the lowest patched layer, and those with the same lowest layer and window go through
        the blocks above in one batch.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens, for an id tensor that is padded on
        either side.
    - `prepend_bos`: whether texts begin with a BOS token; by default as `bridge.to_tokens` does.
    - `prompt_length`: how many tokens of each text were given, for `positions="generated"`.
    - `text_seeds`: an integer for each text, so that each text draws its own random tokens; without
        them position i has the same draw in every text.
    - `max_length`: how many tokens the model reads at a time, its context by default. Longer texts
        are read in pieces of that length, each as a separate text, which begins with the BOS token
        if the text does.
    - `overlap`: how many tokens a piece shares with the one before it, which predicts there, since
        it has seen more. By default half of what a piece holds beside a BOS token.
    - `fwd_hooks`: hooks of your own in the same runs, `[(name, fn)]`, that change every position
        in the same way and independently of the others: an SAE, an ablated direction, a steering
        vector. They come before the patch at the same point. From the patched block up they get
        rows `[patch * batch, row, ...]`, which are not a text in order.
    - `enable_grad`: keep the graph, to differentiate by whatever a mode or source, or the model's
        blocks, depend on; not by the embedding or the unembedding, which are read without it.
    - `progress`: show the share that is done.

    **Returns:** `[batch, pos, d_vocab]`, or `[patch, batch, pos, d_vocab]` for a sequence of
    patches.

    Raises `ValueError` if another hook is on a patched block or one above it, if hooks of a patch
    are on any, if there is any hook while there is padding on the left, if texts that are read in
    pieces do not all begin with a BOS token or all without, one of `fwd_hooks` does not act by
    position, `positions` would have to be counted across pieces, `prompt_length` exceeds a text,
    logits are not a number, the model is in training mode, ids are not in the vocabulary, those
    that a source returns, too, or `enable_grad` is set inside `torch.inference_mode` or for a model
    that was loaded there; `TypeError` if the input is neither text nor ids, or for anything else
    than patches; `NotImplementedError` if the model's logits are not read off one residual stream.
    Warns if no text has one of the positions that a patch names.
    """
    if enable_grad:
        require_gradients("enable_grad=True", bridge)
    with torch.set_grad_enabled(enable_grad), share_shown("teacher forcing", shown=progress):
        batch, aligned, passes = _planned(
            bridge,
            text_or_tokens,
            patch,
            attention_mask=attention_mask,
            prepend_bos=prepend_bos,
            prompt_length=prompt_length,
            text_seeds=text_seeds,
            max_length=max_length,
            overlap=overlap,
            fwd_hooks=fwd_hooks,
        )
        values = _pad_like(batch, passes.read(lambda logits, _next: logits, aligned.tokens))
        _require_numbers(values.detach().amax(-1).isnan() & batch.mask)
        values = values.masked_fill_(~batch.mask[..., None], torch.nan)
    return values if isinstance(patch, Sequence) else values[0]


def _planned(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    patch: Patches,
    *,
    attention_mask: Tensor | None,
    prepend_bos: bool | None,
    **options: Any,
) -> tuple[TokenBatch, TokenBatch, TextPasses]:
    """The texts as they were given, the same with their padding on the right, and the passes."""
    batch = token_batch(
        bridge,
        text_or_tokens,
        prepend_bos=prepend_bos,
        attention_mask=attention_mask,
        any_length=True,
    )
    aligned = moved_right(bridge, batch)
    return batch, aligned, TextPasses.plan(bridge, listed(patch), aligned, **options)


def _require_entries(where: Tensor, predicted: Bool[Tensor, "batch next"]) -> None:
    if not isinstance(where, Tensor):
        raise TypeError(
            f"where must be a tensor of bools, got {type(where).__name__}: pass torch.tensor(where)"
        )
    if where.dtype != torch.bool or where.shape != predicted.shape:
        raise ValueError(
            f"where must be a bool for each next token, of shape {tuple(predicted.shape)}; got "
            f"{where.dtype} of shape {tuple(where.shape)}"
        )


def _require_numbers(missing: Bool[Tensor, "patch batch _"]) -> None:
    if missing.any():
        # What is written at a later position reaches an earlier one as 0 * nan.
        patch, text = missing.nonzero()[0, :2].tolist()
        raise ValueError(
            f"the model's logits are not a number, first under patch {patch} in text {text}: look "
            "for a patch that writes such values, or a half-precision overflow"
        )


def _pad_like(
    batch: TokenBatch, values: Shaped[Tensor, "patch batch pos *rest"]
) -> Shaped[Tensor, "patch batch column *rest"]:
    """Values of positions, put where `batch` has those positions; anything at padding."""
    if not batch.left_padded and values.shape[2] == batch.tokens.shape[1]:
        return values
    row = torch.arange(len(batch.tokens), device=values.device)
    return values[:, row[:, None], batch.positions.to(values.device)]
