"""Sampled texts: described as they are, each the same in any batch."""

from dataclasses import asdict

import pandas as pd
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments.design.conditions import NO_PATCH
from lens_interventions.experiments.design.samples import measure_samples, sample_totals
from lens_interventions.experiments.loops import Rule
from lens_interventions.measures.behaviour import ending_loop
from tests.support.arms import ARMS, PATCH
from tests.support.tiny import tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(scope="module")
def looping_bridge() -> TransformerBridge:
    """One of the few random models whose greedy text falls into a loop, from `[1, 5, 6]`."""
    return tiny_bridge("gpt2", seed=5)


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
        *PATCH.patches(bridge, [arm]),
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


def test_a_text_too_short_to_repeat_itself_adds_nothing() -> None:
    of_texts = {"prompt": [1, 2], "looped": [True, False], "rep_4": [0.5, float("nan")]}
    samples = pd.DataFrame({**NO_PATCH.columns(), "half": "report", "rule": "greedy", **of_texts})
    totals = sample_totals(samples).set_index(["measure", "sequence"])
    assert totals["total"].to_dict() == {
        ("looped", 1): 1.0,
        ("looped", 2): 0.0,
        ("rep-4", 1): 0.5,
        ("rep-4", 2): 0.0,
    }
    assert (totals["count"] == 1).all()
