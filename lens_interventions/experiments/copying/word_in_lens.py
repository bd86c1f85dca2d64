"""Where the logit lens has the word that is due at the top, with and without a patch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from ...lens.logit_lens import logit_lens
from ...model.hooks import hooked
from ..design.conditions import Arm, PatchSettings
from ..design.copy_rows import Patch, numbers, parse, rows_of, table_of
from ..design.sequences import TokenSequence
from ..engine.json_values import Values
from ..engine.work_units import unit_kind


@unit_kind("word in the lens")
def measure_lens(
    bridge: TransformerBridge, sequences: Sequence[Values], arms: Sequence[Values], patch: Patch
) -> pd.DataFrame:
    """At which residual points the logit lens has the word's first token at the top.

    The lens is read where the word is due, in the run in which everything before is patched. The
    measure "lens_top" has the tag "point-p" for each point p. "lens_first" is the first such point,
    counted from 0, or the number of points if there is none.
    """
    texts, conditions, settings = parse(sequences, arms, patch)
    top = torch.stack([_top_by_point(bridge, texts, arm, settings) for arm in conditions])
    n_points = top.shape[-1]
    first = torch.where(top.any(-1), top.int().argmax(-1), n_points)
    tags, ones = [text.tags for text in texts], np.ones(len(texts))
    rows = rows_of(texts, conditions, "lens_first", tags, first, ones)
    for point in range(n_points):
        of_point = [f"{tag} point-{point}" for tag in tags]
        rows += rows_of(texts, conditions, "lens_top", of_point, top[..., point], ones)
    return table_of(rows)


def _top_by_point(
    bridge: TransformerBridge, texts: Sequence[TokenSequence], arm: Arm, settings: PatchSettings
) -> Bool[Tensor, "sequence point"]:
    """Whether the word's first token is at the top, read at the token before it."""
    prefixes = [torch.tensor(text.tokens[: len(text.tokens) - text.copied]) for text in texts]
    words = [text.tokens[len(prefix)] for text, prefix in zip(texts, prefixes, strict=True)]
    tokens = pad_sequence(prefixes, batch_first=True).to(bridge.cfg.device)
    lengths = torch.tensor([len(prefix) for prefix in prefixes])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).to(bridge.cfg.device)
    (patch,) = settings.patches(bridge, [arm])
    seeds = torch.tensor(numbers(texts))
    hooks = patch.fwd_hooks(bridge, tokens, attention_mask=mask, text_seeds=seeds) if patch else []
    with hooked(bridge, hooks):
        trajectory = logit_lens(bridge, tokens, attention_mask=mask, positions=-1, top_k=1)
    top = trajectory.top_ids[:, :, 0, 0] == torch.tensor(words)
    return top.T
