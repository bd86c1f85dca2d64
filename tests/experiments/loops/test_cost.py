"""The loss that an arm or a rule costs."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import log_softmax
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design.conditions import NO_PATCH
from lens_interventions.experiments.loops import Rule
from lens_interventions.experiments.loops.cost import (
    SPREAD,
    measure_arm_losses,
    measure_rule_loss,
    processed_log_probs,
    smoothed_loss,
)
from tests.support import reference_layer_contrast as reference
from tests.support.arms import ARMS, PATCH, next_logits

pytestmark = pytest.mark.usefixtures("without_gradients")


def documents(bridge: TransformerBridge) -> list[dict]:
    return [
        {"number": n, "half": "report", "title": f"d{n}", "tokens": [1, n, n, n + 9, n]}
        for n in (30, 40)
    ]


def test_losses_of_arms_are_of_the_patched_model(llama: TransformerBridge) -> None:
    rows = measure_arm_losses(
        llama, documents(llama)[:1], [arm.columns() for arm in ARMS[:2]], asdict(PATCH)
    )
    tokens = documents(llama)[0]["tokens"]
    for arm in ARMS[:2]:
        log_probs = torch.stack(
            [
                next_logits(llama, tokens[:i], arm).log_softmax(-1)[tokens[i]]
                for i in range(1, len(tokens))
            ]
        )
        expected = -((1 - SPREAD) * log_probs.exp() + SPREAD / 112).log().sum()
        (found,) = rows[(rows["source"] == arm.source) & (rows["measure"] == "loss")]["total"]
        assert_allclose(found, float(expected), atol=1e-9)


def test_a_rule_s_loss_is_that_of_the_processed_distribution() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]] * 3)
    tokens = torch.tensor([0, 1, 3, 0])
    at_two = processed_log_probs(Rule(sample=True, temperature=2.0), tokens, logits)
    expected = (logits[0] / 2).log_softmax(-1)[tokens[1:]]
    assert_allclose(at_two.numpy(), expected.numpy(), atol=1e-6)  # transformers' float32
    # Probabilities 0.64, 0.24, 0.09, 0.03: the first two make 0.88, so 0.7 keeps both.
    top_p = processed_log_probs(Rule(sample=True, top_p=0.7), tokens, logits)
    assert top_p.isneginf().tolist() == [False, True, False]
    assert_allclose(float(top_p[0]), math.log(1 / (1 + math.e)), atol=1e-6)
    # What has been said is penalised: 0 at all positions, 1 from the second on.
    penalised = processed_log_probs(Rule(repetition_penalty=2.0), tokens, logits)
    seen_0 = torch.tensor([1.0, 1.0, 0.0, -1.0]).log_softmax(-1)
    seen_all = torch.tensor([1.0, 0.5, 0.0, -2.0]).log_softmax(-1)
    assert_allclose(float(penalised[0]), float(seen_0[1]), atol=1e-6)
    assert_allclose(float(penalised[2]), float(seen_all[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "naive"),
    [("DoLa against upper layers", reference.dola), ("SLED", reference.sled)],
)
@pytest.mark.parametrize("bridge", ["llama", "gpt2"], indirect=True)
def test_a_contrast_s_loss_is_that_of_decoding_token_by_token(
    bridge: TransformerBridge, name: str, naive: reference.Rule
) -> None:
    rule = Rule(layer_contrast=name, repetition_penalty=1.3)
    (document,) = documents(bridge)[:1]
    rows = measure_rule_loss(bridge, [document], NO_PATCH.columns(), rule.columns(), asdict(PATCH))
    tokens = document["tokens"]
    assert rule.contrast is not None
    layers = [int(label.split("_")[0]) for label in rule.contrast.bind(bridge).labels]
    log_probs = []
    for place in range(1, len(tokens)):
        new = reference.new_logits(bridge, tokens[:place], naive, layers)
        for seen in set(tokens[:place]):
            new[seen] = new[seen] / 1.3 if new[seen] > 0 else new[seen] * 1.3
        log_probs.append(log_softmax(new)[tokens[place]])
    expected = -np.log((1 - SPREAD) * np.exp(log_probs) + SPREAD / 112)
    (loss,) = rows[rows["measure"] == "loss"]["total"]
    assert_allclose(loss, expected.sum(), atol=1e-4)  # transformers' float32
    (excluded,) = rows[rows["measure"] == "excluded"]["total"]
    assert excluded == np.isneginf(log_probs).sum()


def test_a_contrast_under_a_patch_has_no_loss(llama: TransformerBridge) -> None:
    rule = Rule(layer_contrast="SLED")
    with pytest.raises(NotImplementedError, match="the loss of SLED is measured without a patch"):
        measure_rule_loss(llama, documents(llama), ARMS[1].columns(), rule.columns(), asdict(PATCH))


def test_a_token_that_a_rule_cuts_off_costs_a_finite_loss() -> None:
    losses = smoothed_loss(torch.tensor([-math.inf, 0.0, -2.0]), 49152)
    assert_allclose(float(losses[0]), math.log(100 * 49152), atol=1e-9)
    # p = 1 loses a hundredth, other tokens no more than that.
    assert_allclose(losses[1:].numpy(), [-math.log(0.99 + 0.01 / 49152), 2.01005], atol=1e-5)


def test_the_cut_off_share_is_counted(llama: TransformerBridge) -> None:
    rule = Rule(sample=True, min_p=0.9)
    rows = measure_rule_loss(
        llama, documents(llama), NO_PATCH.columns(), rule.columns(), asdict(PATCH)
    )
    excluded = rows[rows["measure"] == "excluded"]
    assert excluded["total"].between(1, 4).all()  # min-p 0.9 leaves hardly any token
    assert np.isfinite(rows["total"]).all()
