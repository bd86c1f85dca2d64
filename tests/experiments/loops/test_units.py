"""Loops: what each unit of work measures, held to plain runs."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments.design.conditions import (
    NO_PATCH,
    Arm,
    Cell,
    PatchSettings,
    source_arms,
)
from lens_interventions.experiments.design.samples import measure_samples
from lens_interventions.experiments.loops import Rule
from lens_interventions.experiments.loops.cost import (
    SPREAD,
    measure_arm_losses,
    measure_rule_loss,
    processed_log_probs,
    smoothed_loss,
)
from lens_interventions.experiments.loops.rounds import measure_noticing, measure_rounds
from lens_interventions.measures.behaviour import ending_loop
from tests.support.exact import float64_softmax
from tests.support.tiny import D_VOCAB, tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")

PATCH = PatchSettings()
ARMS = [NO_PATCH, Arm("true", 1, 0.5, "interpolate"), Arm("random", 1, 0.5, "interpolate")]


@pytest.fixture(scope="module")
def looping_bridge() -> TransformerBridge:
    """One of the few random models whose greedy text falls into a loop, from `[1, 5, 6]`."""
    return tiny_bridge("gpt2", seed=5)


def next_logits(bridge: TransformerBridge, tokens: list[int], arm: Arm) -> torch.Tensor:
    """Logits after a text, with plain hooks on all positions but the last."""
    text = torch.tensor([tokens])
    patch = PATCH.patch(arm, len(tokens))
    seeds = torch.tensor([7])
    hooks = [] if patch is None else patch.fwd_hooks(bridge, text, text_seeds=seeds)
    return bridge.run_with_hooks(text, fwd_hooks=hooks)[0, -1]


@float64_softmax()
def test_another_round_is_scored_as_if_it_were_sampled(llama: TransformerBridge) -> None:
    start, said = [1], [20, 31, 42]
    passage = {"number": 7, "half": "report", "start": start, "said": said, "rounds": 3}
    rows = measure_rounds(llama, [passage], [arm.columns() for arm in ARMS], asdict(PATCH))
    assert len(rows) == len(ARMS) * 2
    for arm in ARMS:
        for k in (1, 2):
            text, log_prob = [*start, *said * k], 0.0
            for token in said:
                log_prob += float(next_logits(llama, text, arm).log_softmax(-1)[token])
                text.append(token)
            here = rows[(rows["source"] == arm.source) & (rows["category"] == f"k-{k}")]
            assert here["measure"].tolist() == ["again"]
            # Small ones too, of which the relative error tells.
            assert_allclose(here["total"], math.exp(log_prob), rtol=1e-9)


class LogitRows(TorchDispatchMode):
    """How many rows of logits there are in the largest tensor of them."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape[-1:] == (D_VOCAB,):
            self.most = max(self.most, out.numel() // D_VOCAB)
        return out


def test_rounds_do_not_hold_the_logits_of_all_arms(llama: TransformerBridge) -> None:
    """With 262,144 tokens they would be gigabytes."""
    passage = {"number": 7, "half": "report", "start": [1], "said": [20, 31, 42], "rounds": 33}
    arms = [arm.columns() for arm in source_arms(Cell(1, 0.5, "interpolate"))]
    with LogitRows() as rows:
        measure_rounds(llama, [passage], arms, asdict(PATCH))
    assert 0 < rows.most < 3 * 33 * len(arms) / 2


def test_samples_are_described_as_they_are(looping_bridge: TransformerBridge) -> None:
    bridge = looping_bridge
    prompts = [
        {"number": n, "half": "report", "register": "x", "text": "p", "tokens": [1, n, n + 1]}
        for n in (5, 30, 40)
    ]
    arm = ARMS[1]
    rows = measure_samples(
        bridge,
        prompts,
        [NO_PATCH.columns(), arm.columns()],
        Rule().columns(),
        asdict(PATCH),
        110,
        0,
    )
    out = li.generate(
        bridge,
        [p["tokens"] for p in prompts],
        PATCH.patch(arm, 128),
        max_new_tokens=110,
        text_seeds=torch.tensor([5, 30, 40]),
    )
    assert rows["source"].tolist() == ["none"] * 3 + ["true"] * 3
    for row, tokens, ended in zip(
        rows[3:].to_dict("records"), out.tokens, out.finished.tolist(), strict=True
    ):
        expected = tokens[tokens >= 0]
        expected = expected[: len(expected) - ended]
        assert list(row["tokens"]) == expected.tolist()
        loop = ending_loop(expected)
        assert row["looped"] == (loop is not None)
        if loop is not None:
            assert (row["onset"], row["period"]) == (loop.start, loop.period)
            assert row["again"].startswith(row["first_round"][:1])
        whole = row["before"] + row["first_round"] + row["again"]
        assert whole.replace(" ", "") == bridge.tokenizer.decode(expected).replace(" ", "")
    assert rows["looped"].any()


def test_a_prompt_s_sample_does_not_depend_on_its_batch(llama: TransformerBridge) -> None:
    prompts = [
        {"number": n, "half": "report", "register": "x", "text": "p", "tokens": [1, n]}
        for n in (30, 40)
    ]
    rule = Rule(sample=True, temperature=1.5)
    arguments = ([ARMS[2].columns()], rule.columns(), asdict(PATCH), 20, 3)
    together = measure_samples(llama, prompts, *arguments)
    alone = measure_samples(llama, prompts[1:], *arguments)
    assert list(together["tokens"][1]) == list(alone["tokens"][0])
    other = measure_samples(llama, prompts[1:], *arguments[:-1], 4)
    assert list(other["tokens"][0]) != list(alone["tokens"][0])


def test_noticing_ranks_the_continuation_of_each_round(llama: TransformerBridge) -> None:
    said = [20, 31, 42]
    passage = {"number": 0, "half": "report", "start": [1], "said": said, "rounds": 2}
    rows = measure_noticing(llama, [passage], 1)
    _, cache = llama.run_with_cache(torch.tensor([[1, *said, *said]]))
    for layer in range(3):
        logits = llama.unembed(llama.ln_final(cache[f"blocks.{layer}.hook_resid_pre"]))[0]
        for number in (0, 1):
            ranks = [
                int((logits[3 * number + i] > logits[3 * number + i, token]).sum())
                for i, token in enumerate(said)
            ]
            (row,) = rows[(rows["point"] == layer) & (rows["round"] == number + 1)].to_dict(
                "records"
            )
            assert row["count"] == 3
            assert_allclose(row["log_rank"], np.log1p(ranks).sum(), atol=1e-9)
            assert row["top"] == ranks.count(0)


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


@pytest.mark.parametrize(
    ("rule", "name", "family"),
    [
        (Rule(), "greedy", "greedy"),
        (Rule(repetition_penalty=1.1), "repetition penalty 1.1", "repetition penalty"),
        (Rule(sample=True), "temperature 1", "temperature"),
        (Rule(sample=True, temperature=0.7), "temperature 0.7", "temperature"),
        (Rule(sample=True, top_p=0.9), "top-p 0.9", "top-p"),
        (Rule(sample=True, min_p=0.1), "min-p 0.1", "min-p"),
    ],
)
def test_rules_have_names(rule: Rule, name: str, family: str) -> None:
    assert str(rule) == name
    assert rule.family == family
