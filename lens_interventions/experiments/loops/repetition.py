"""Units: passages that are said again and again, scored round by round and layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...lens import logit_lens
from ...points import select_points
from ...teacher_forcing import teacher_forced_logits
from ..conditions import Arm, PatchSettings
from ..settings import from_values

AGAIN, AGAIN_GREEDILY, ROUND_LOSS = "again", "again-greedily", "round-loss"


def measure_rounds(
    bridge: TransformerBridge,
    passages: Sequence[Mapping[str, Any]],
    arms: Sequence[Mapping[str, Any]],
    patch: Mapping[str, Any],
) -> pd.DataFrame:
    """How likely each arm is to go round once more, after k = 1, 2, ... rounds of a passage.

    For every arm, passage and k three rows. "again": the probability that free running at
    temperature 1 says the passage exactly once more, the product of the probabilities of its
    tokens. "again-greedily": 1 if greedy decoding does, each token of the round being the likeliest
    after those before. "round-loss": summed loss of the round, over as many tokens.

    One teacher-forced pass gives all k at once: what the patch writes while a text is sampled is
    what it writes when the same text is given.
    """
    settings = from_values(PatchSettings, patch)
    conditions = [Arm(**arm) for arm in arms]
    rows = []
    for passage in passages:
        start, said, rounds = passage["start"], passage["said"], passage["rounds"]
        text = torch.tensor([[*start, *said * rounds]])
        logits = teacher_forced_logits(
            bridge,
            text,
            [settings.patch(arm, text.shape[1]) for arm in conditions],
            text_seeds=torch.tensor([passage["number"]]),
        )[:, 0, :-1]
        for arm, arm_logits in zip(conditions, logits, strict=True):
            log_probs, is_top = _of_text(arm_logits, text[0, 1:].to(arm_logits.device))
            for k in range(1, rounds):
                here = slice(len(start) + k * len(said) - 1, len(start) + (k + 1) * len(said) - 1)
                log_prob = float(log_probs[here].sum())
                values = {
                    AGAIN: (float(np.exp(log_prob)), 1),
                    AGAIN_GREEDILY: (float(is_top[here].all()), 1),
                    ROUND_LOSS: (-log_prob, len(said)),
                }
                rows += [
                    {
                        "half": passage["half"],
                        "sequence": passage["number"],
                        "cluster": str(passage["number"]),
                        **arm.columns(),
                        "measure": measure,
                        "category": f"k-{k}",
                        "total": total,
                        "count": count,
                    }
                    for measure, (total, count) in values.items()
                ]
    return pd.DataFrame(rows)


def measure_noticing(
    bridge: TransformerBridge, passages: Sequence[Mapping[str, Any]], every: int
) -> pd.DataFrame:
    """The lens's rank of the right continuation, by passage, round and point, without a patch.

    `log_rank` and `top` are sums over the tokens of the round, of log(1 + rank) and of whether the
    rank is 0; a round's tokens are predicted from the position before each.
    """
    points = select_points(int(bridge.cfg.n_layers), every=every)
    rows = []
    for passage in passages:
        start, said, rounds = passage["start"], passage["said"], passage["rounds"]
        read = logit_lens(bridge, torch.tensor([[*start, *said * rounds]]), points=points, top_k=1)
        ranks = read.next_rank[:, 0, :-1].double()
        for number in range(rounds):
            first = len(start) + number * len(said) - 1
            here = ranks[:, max(first, 0) : first + len(said)]
            rows += [
                {
                    "passage": passage["number"],
                    "round": number + 1,
                    "point": place,
                    "label": label,
                    "log_rank": float(row.log1p().sum()),
                    "top": float((row == 0).sum()),
                    "count": len(row),
                }
                for place, (label, row) in enumerate(zip(read.points, here, strict=True))
            ]
    return pd.DataFrame(rows)


def _of_text(
    logits: Float[Tensor, "pos d_vocab"], following: Tensor
) -> tuple[Float[Tensor, " pos"], Tensor]:
    """Log-probability of each next token, and whether it is the likeliest."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = logits.gather(-1, following[:, None])[:, 0]
    return (own - logits.logsumexp(-1)).double(), logits.argmax(-1) == following
