"""The decoder of a bridge: with a cache if that is exact, otherwise by recomputing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.attention_masks import sliding_window, unknown_kinds
from ...model.capabilities import (
    REFUSALS,
    frequencies_change_after,
    lacks_memory,
    recall,
    slow_check,
)
from ...model.causal_stack import require_causal_stack
from ...model.hooks import without_hooks
from ...model.kept_answers import is_kept, keep_right
from ...model.kinds import refuse_recurrent_parts, text_config
from ...model.product import product_dtype
from ...model.readout import readout, refuse_nan, require_readable
from ...model.user_hooks import hooked_modules, lasting_hooks
from ...model.user_warnings import warn_user
from ..known_text import KnownText, select_rows
from ..patch import NextTokenPatch
from .cached_decoder import CachedDecoder, CacheError, first_of_two_parts
from .decoder_beside_unpatched import DecoderBesideUnpatched
from .patch_batch import PatchBatch
from .recomputing_decoder import RecomputingDecoder

# How far logits of the cached path may be from recomputed ones, in standard deviations of the
# logits: more than rounding causes, less than a wrong position, mask or key.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}
_HALF_TOLERANCE = 0.1

# The lengths of a text that grows, if a few tokens are enough to try a decoder.
_FEW = range(7, 10)


Decoder = CachedDecoder | DecoderBesideUnpatched | RecomputingDecoder


def decoder(
    bridge: TransformerBridge,
    patches: PatchBatch,
    *,
    length: int,
    chunk_size: int,
    record: Sequence[str] = (),
) -> Decoder:
    """The cached decoder, or the recomputing one if a trial shows that the cache is not exact.

    A warning says when the decoder recomputes, and why.

    **Arguments:**

    - `bridge`: the model.
    - `patches`: the patches, each on all the prompts.
    - `length`: the length of the longest text that may come up, in tokens.
    - `chunk_size`: how many positions of a prompt go through the model at a time, with a cache.
    - `record`: labels of the residual points to keep at the predicting positions.

    Raises `NotImplementedError` if the model has recurrent layers or is not a causal decoder;
    `ValueError` if its logits are not `unembed` of `ln_final` of the last residual; `CacheError` if
    transformers does not fill the cache.
    """
    require_decodable(bridge)
    split = first_of_two_parts(bridge, patches)
    longest = frequencies_change_after(bridge)
    problem = _cached_decoding_problem(bridge, split, length)
    if length > longest:
        problem = problem or f"its rotary frequencies change after {longest:.0f} tokens"
    if split and patches.reads_unpatched:
        # The stream without a patch runs all blocks together, and needs a trial of its own.
        problem = problem or _cached_decoding_problem(bridge, 0, length)
    if not problem and patches.layers and _is_hooked_from(bridge, patches.layers[0]):
        with slow_check("whether decoding with a cache is exact under the hooks on the model"):
            found = _probe(bridge, split, _lengths_to(length), hooks=True)
        problem = f"under the hooks on it {found}" if found else ""
    if not problem:
        kind = DecoderBesideUnpatched if patches.reads_unpatched else CachedDecoder
        return kind(bridge, patches, chunk_size=chunk_size, record=record)
    warn_user(
        f"decoding with a cache is not exact on {bridge.cfg.architecture} ({problem}): every "
        "text, even one without a patch, is recomputed from its start for each new token, which is "
        "slow",
    )
    return RecomputingDecoder(bridge, patches, record=record)


def _cached_decoding_problem(bridge: TransformerBridge, split: int, length: int) -> str:
    """What is wrong with the cached decoder on texts of up to `length`; empty if it is exact.

    `split` is the block from which on the blocks run by themselves; 0 if all run together. Each is
    tried once, since lower blocks may hand something to higher ones besides the residual.

    A few tokens are enough for most models. But a model may ignore a sliding window that its
    configuration names, which only a text beyond the window shows. And the user's lasting hooks may
    act at any column, so under these the texts that are tried are as long as `length`.
    """
    blocks = f"in two parts from block {split} up" if split else "with all blocks together"

    def tried(lengths: range, texts: str) -> str:
        question = f"problem of decoding with a cache, {blocks}{texts}"

        def find() -> str:
            if is_kept(bridge, question):
                return ""
            with slow_check(
                f"whether decoding with a cache is exact {blocks}{texts}, once for this model"
            ):
                problem = _probe(bridge, split, lengths)
            if problem:
                return problem + texts
            keep_right(bridge, question)
            return ""

        return recall(bridge, question, find)

    if text_config(bridge) is None:
        return "a network of TransformerLens's own keeps no keys and values"
    # No trial shows what these layers see of all texts.
    unknown = unknown_kinds(bridge)
    if unknown:
        return f"it has layers of {', '.join(unknown)}"
    problem = tried(_lengths_to(0), "")
    window = sliding_window(bridge)
    if not problem and window is not None and length > max(window, _FEW.stop - 1):
        end = min(window + 2, int(bridge.cfg.n_ctx))
        problem = tried(range(end - 1, end + 1), f" on texts beyond its window of {window} tokens")
    if not problem and lasting_hooks(bridge) and length >= _FEW.stop:
        # No longer than asked for: a hook may be made for texts of a certain length.
        problem = tried(_lengths_to(length), f" on texts of up to {length} tokens")
    return problem


def _lengths_to(length: int) -> range:
    """The lengths of a text that grows from a few tokens to `length`."""
    return range(_FEW.start, max(length + 1, _FEW.stop))


def _is_hooked_from(bridge: TransformerBridge, layer: int) -> bool:
    """Whether a temporary hook is on what gets two columns a step: the blocks from `layer` up."""
    hooked = hooked_modules(bridge, "blocks", lasting=False)
    return any(int(name.split(".")[1]) >= layer for name in hooked)


def _probe(bridge: TransformerBridge, split: int, lengths: range, *, hooks: bool = False) -> str:
    """Decode random tokens both ways, and say how they differ; empty if they agree.

    Two prompts, one of them padded, read in chunks, clean and under a patch; and under the user's
    temporary `hooks`, or without them. At first and at last they are compared with a run of the
    text so far, and under hooks, lasting ones too, the clean rows also with a call without a patch.
    In between, the clean prompt without padding is compared with one run of the whole text.
    """
    generator, device = torch.Generator().manual_seed(0), bridge.cfg.device
    size = (2, lengths[-1])
    tokens = torch.randint(int(bridge.cfg.d_vocab), size, generator=generator).to(device)
    first = torch.tensor([0, 2], device=device)
    twice = torch.tensor([0, 1, 0, 1], device=device)
    patch = NextTokenPatch(layer=split, strength=0.5, scale="norm", embedding="W_U")
    possible, errors = readout(bridge).possible(), list[Tensor]()
    set_aside = () if hooks else bridge.hook_points()
    with torch.no_grad(), without_hooks(set_aside):
        patches = PatchBatch.of_prompts([None, patch.bind(bridge)], 2)
        cached = CachedDecoder(bridge, patches, chunk_size=lengths.start // 2 + 1)
        recomputed = RecomputingDecoder(bridge, patches)
        plain = PatchBatch.of_prompts([None], 2)
        # A hook may act in another way on a step's one column than on the two under a patch.
        own = hooks or lasting_hooks(bridge)
        alone = CachedDecoder(bridge, plain, chunk_size=lengths.start) if own else None
        whole = bridge(tokens[:1])[0] if len(lengths) > len(_FEW) else None
        for length in lengths:
            known = tokens[:, :length]
            text = KnownText(known, first, length - first, None, torch.zeros_like(first))
            at_first = length < lengths.start + len(_FEW)
            try:
                clean = alone.logits(text) if alone is not None and at_first else None
                text = select_rows(text, twice)
                found = cached.logits(text)
            except REFUSALS as error:  # or errors of hooks that are made for longer texts
                if isinstance(error, CacheError) or lacks_memory(error):
                    raise
                return f"it fails with {type(error).__name__}: {error}"
            if at_first or length == lengths[-1]:
                expected = recomputed.logits(text)
            else:
                assert whole is not None
                found, expected = found[:1], whole[length - 1 : length]
            if clean is not None:
                found, expected = torch.cat([found, found[:2]]), torch.cat([expected, clean])
            found, expected = found[:, possible], expected[:, possible]
            refuse_nan(expected[:2])  # of the prompts without the patch
            # An unembedding of zeros makes logits that do not vary.
            spread = expected.std().clamp(min=torch.finfo(expected.dtype).tiny)
            errors.append((found - expected).abs().max() / spread)
    worst = float(torch.stack(errors).max())  # nan if one is
    tolerance = _TOLERANCE.get(product_dtype(bridge.W_E), _HALF_TOLERANCE)
    return "" if worst < tolerance else f"logits differ by {worst:.2g} standard deviations"


def require_decodable(bridge: TransformerBridge) -> None:
    """Refuse a model that cannot continue texts.

    Raises `NotImplementedError` if it has recurrent layers or is not a causal decoder; `ValueError`
    if its logits are not `unembed` of `ln_final` of the last residual, or it is in training mode.
    """
    require_causal_stack(bridge)
    # Before the model runs: some versions of transformers fail on a hybrid without a cache.
    refuse_recurrent_parts(bridge)
    require_readable(bridge)
