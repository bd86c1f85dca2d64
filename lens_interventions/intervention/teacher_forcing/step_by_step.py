"""Teacher forcing as a sampler does it: each position predicts in a run of its own.

It serves models that the two streams do not fit. With a cache of keys and values, each token takes
a forward of two rows; without one, a forward of the whole text so far.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import change_layers, hooked, last_logits_only
from ..bound_patch import BoundPatch
from ..generation.decoder import decoder
from ..generation.patch_batch import PatchBatch
from ..known_text import KnownText, select_rows


def decoded_steps(
    bridge: TransformerBridge, patches: Sequence[BoundPatch | None], text: KnownText
) -> Iterator[Float[Tensor, "patch batch 1 d_vocab"]]:
    """Logits at one position after another, from the decoder that generation uses; no gradients.

    The texts have no padding on the left.
    """
    n_texts, length = text.tokens.shape
    batch = PatchBatch.of_prompts(patches, n_texts)
    steps = decoder(bridge, batch, length=length, chunk_size=1)
    for known in _growing(text, len(patches)):
        yield _by_patch(steps.logits(known), len(patches))


def recomputed_steps(
    bridge: TransformerBridge, patches: Sequence[BoundPatch | None], text: KnownText
) -> Iterator[Float[Tensor, "patch batch 1 d_vocab"]]:
    """Logits at one position after another, from plain hooks on the text so far; with gradients.

    This is the definition of teacher forcing under a patch, so it is right by construction.
    """
    batch = PatchBatch.of_prompts(patches, len(text.tokens))
    last_only = last_logits_only(bridge)
    for known in _growing(text, len(patches)):
        patched = partial(batch, position=known.column_positions(), text=known)
        with hooked(bridge, change_layers(batch.layers, patched)):
            logits = bridge(known.tokens, **last_only)
        yield _by_patch(logits[:, -1], len(patches))


def _by_patch(
    logits: Float[Tensor, "rows d_vocab"], n_patches: int
) -> Float[Tensor, "patch batch 1 d_vocab"]:
    return rearrange(logits, "(patch batch) v -> patch batch 1 v", patch=n_patches)


def _growing(text: KnownText, copies: int) -> Iterator[KnownText]:
    """The first column known, then the first two and so on, once for each patch.

    Padding on the right counts as text, since no earlier token can see it.
    """
    row = repeat(torch.arange(len(text.tokens), device=text.tokens.device), "b -> (c b)", c=copies)
    repeated = select_rows(text, row)
    for stop in range(1, text.tokens.shape[1] + 1):
        length = torch.full_like(repeated.length, stop)
        yield replace(repeated, tokens=repeated.tokens[:, :stop], length=length)
