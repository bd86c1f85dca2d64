"""The cost of an arm or a sampling rule: its loss on text that it did not write."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._progress import steps
from ...intervention.generation.layer_contrast import LayerContrast
from ...intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from ...model.precision import as_double, at_least_float32
from ...model.residuals import residuals
from ...model.tokens import token_batch
from ..design.conditions import NO_PATCH, Arm, PatchSettings
from ..design.rules import GREEDY, Rule
from ..engine.json_values import from_values
from ..engine.work_units import unit_kind

LOSS, EXCLUDED = "loss", "excluded"

SPREAD = 0.01
"""Share of the mass that is spread evenly over the vocabulary before a loss is taken."""


def smoothed_loss(log_probs: Float[Tensor, " pos"], d_vocab: int) -> Float[Tensor, " pos"]:
    """`-log((1 - SPREAD) p + SPREAD / d_vocab)`, nats.

    Top-p and min-p give the tokens that they cut off a probability of 0 and an infinite loss, so no
    mean exists. Spreading a hundredth of every arm's probability evenly keeps the loss finite: a
    token that is cut off costs log(100 d_vocab), 15.4 nats with the embedded model's vocabulary,
    and any other token costs at most 0.01 more. With another constant this is the
    epsilon-perplexity of Martins, Marinho & Martins (2020), "Sparse Text Generation".
    """
    return -((1 - SPREAD) * as_double(log_probs).exp() + SPREAD / d_vocab).log()


@unit_kind("losses of arms")
def measure_arm_losses(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    arms: Sequence[Mapping[str, Any]],
    patch: Mapping[str, Any],
) -> pd.DataFrame:
    """Loss of each document under each arm, teacher-forced, from the whole distribution."""
    settings = from_values(PatchSettings, patch)
    conditions = [Arm(**arm) for arm in arms]
    rows = []
    for document in steps(documents):
        tokens = torch.tensor([document["tokens"]])
        log_probs = teacher_forced_log_probs(
            bridge,
            tokens,
            settings.patches(bridge, conditions),
            text_seeds=torch.tensor([document["number"]]),
        )[:, 0]
        for arm, values in zip(conditions, log_probs, strict=True):
            rows += _rows(bridge, document, arm, GREEDY, values)
    return pd.DataFrame(rows)


@unit_kind("loss of a rule")
def measure_rule_loss(
    bridge: TransformerBridge,
    documents: Sequence[Mapping[str, Any]],
    arm: Mapping[str, Any],
    rule: Mapping[str, Any],
    patch: Mapping[str, Any],
) -> pd.DataFrame:
    """Loss of each document under an arm whose distribution a sampling rule has changed.

    Raises `NotImplementedError` for a layer contrast of a patched model.
    """
    chosen, condition = Rule(**rule), Arm(**arm)
    if chosen.contrast is not None and condition != NO_PATCH:
        raise NotImplementedError(
            f"the loss of {chosen} is measured without a patch, got {condition}: the residuals at "
            "the positions that predict under a patch cannot come from one pass"
        )
    settings = from_values(PatchSettings, patch)
    rows = []
    for document in steps(documents):
        tokens = torch.tensor([document["tokens"]], device=bridge.cfg.device)
        logits = teacher_forced_logits(
            bridge,
            tokens,
            settings.patches(bridge, [condition])[0],
            text_seeds=torch.tensor([document["number"]]),
        )[0, :-1]
        if chosen.contrast is not None:
            logits = contrasted_logits(bridge, chosen.contrast, tokens, logits)
        log_probs = processed_log_probs(chosen, tokens[0], logits)
        rows += _rows(bridge, document, condition, chosen, log_probs)
    return pd.DataFrame(rows)


@torch.no_grad()
def contrasted_logits(
    bridge: TransformerBridge,
    contrast: LayerContrast,
    tokens: Int[Tensor, "1 pos"],
    logits: Float[Tensor, "pos_minus_1 d_vocab"],
) -> Float[Tensor, "pos_minus_1 d_vocab"]:
    """The logits of a layer contrast at all positions except the last, from the model's own."""
    bound = contrast.bind(bridge)
    streams = residuals(bridge, token_batch(bridge, tokens), bound.labels)
    early = {label: resid[0, :-1] for label, resid in zip(bound.labels, streams, strict=True)}
    return bound(logits.to(at_least_float32(logits.dtype)), early)


def processed_log_probs(
    rule: Rule, tokens: Int[Tensor, " pos"], logits: Float[Tensor, "pos_minus_1 d_vocab"]
) -> Float[Tensor, " pos_minus_1"]:
    """Log-probability of each next token after the rule's processors; -inf if it is cut off."""
    processors = rule.processors()
    found = []
    for place, scores in enumerate(logits.float()):
        # A processor may change its argument.
        prefix = tokens[None, : place + 1]
        processed = processors(prefix, scores[None].clone())[0]  # type: ignore[arg-type]
        found.append(processed[tokens[place + 1]] - processed.logsumexp(-1))
    return torch.stack(found)


def _rows(
    bridge: TransformerBridge,
    document: Mapping[str, Any],
    arm: Arm,
    rule: Rule,
    log_probs: Float[Tensor, " pos"],
) -> list[dict[str, Any]]:
    loss = smoothed_loss(log_probs, int(bridge.cfg.d_vocab))
    totals = {LOSS: float(loss.sum()), EXCLUDED: float(log_probs.isneginf().sum())}
    return [
        {
            "half": document["half"],
            "sequence": document["number"],
            "cluster": document["title"],
            **arm.columns(),
            "rule": str(rule),
            "measure": measure,
            "category": "prose",
            "total": total,
            "count": len(loss),
        }
        for measure, total in totals.items()
    ]
