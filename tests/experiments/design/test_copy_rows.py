"""Rows on copies and text, against step-by-step computation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.design import copy_rows
from lens_interventions.experiments.design.conditions import ARM_COLUMNS, NO_PATCH, Arm
from lens_interventions.experiments.design.copy_rows import (
    measure_induction,
    measure_repeats,
    measure_templates,
    measure_text,
)
from lens_interventions.experiments.design.scores import read_log_probs
from tests.support.exact import float64_softmax
from tests.support.scored_sequences import ARMS, PATCH, parameters, text, total
from tests.support.tiny import shared_bridge


def step_by_step(bridge: TransformerBridge, tokens: Sequence[int], arm: Arm, seed: int) -> Tensor:
    """Log-probs `[next, d_vocab]`, each from a run of its own with plain hooks on the prefix."""
    rows = []
    for end in range(1, len(tokens)):
        prefix = torch.tensor([tokens[:end]])
        patch = PATCH.patches(bridge, [arm])[0]
        hooks = patch.fwd_hooks(bridge, prefix, text_seeds=torch.tensor([seed])) if patch else []
        with bridge.hooks(fwd_hooks=hooks):
            rows.append(bridge(prefix)[0, -1].log_softmax(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_induction_is_the_second_copy_step_by_step(arch: str) -> None:
    bridge = shared_bridge(arch)
    said = [[9, 40, 7, 21, 33], [50, 51, 8, 90, 10]]
    texts = [text(n, [0, *half, *half], copied=5) for n, half in enumerate(said)]
    with torch.no_grad(), float64_softmax():
        rows = measure_induction(bridge, **parameters(texts))
        for item in texts:
            for arm in ARMS:
                log_probs = step_by_step(bridge, item.tokens, arm, item.number)
                targets = torch.tensor(item.tokens[7:])  # without the first token said again
                second = log_probs[6:]
                loss = -second.gather(1, targets[:, None]).sum()
                top1 = (second.argmax(-1) == targets).sum()
                assert total(rows, arm, item.number, "loss") == pytest.approx(float(loss), abs=1e-9)
                assert total(rows, arm, item.number, "top1") == float(top1)
    assert (rows["count"] == 4).all()


@pytest.mark.parametrize("ranks", [True, False])
def test_templates_score_the_word_step_by_step(ranks: bool) -> None:
    bridge = shared_bridge("llama")
    # Unequal lengths and words of 2 tokens and 1: the shorter text is padded.
    texts = [text(3, [0, 9, 8, 7, 60, 61], copied=2), text(5, [0, 30, 31], copied=1)]
    with torch.no_grad(), float64_softmax():
        rows = measure_templates(bridge, **parameters(texts), ranks=ranks)
        for item in texts:
            for arm in ARMS:
                log_probs = step_by_step(bridge, item.tokens, arm, item.number)
                first = len(item.tokens) - 1 - item.copied
                word = item.tokens[first + 1 :]
                said = sum(log_probs[first + i, token] for i, token in enumerate(word))
                assert total(rows, arm, item.number, "log_prob") == pytest.approx(
                    float(said), abs=1e-9
                )
                if ranks:
                    rank = int((log_probs[first] > log_probs[first, word[0]]).sum())
                    assert total(rows, arm, item.number, "rank") == rank
                    assert total(rows, arm, item.number, "top1") == float(rank == 0)
                    assert total(rows, arm, item.number, "log_rank") == pytest.approx(
                        np.log1p(rank), abs=1e-12
                    )
    assert (rows["crossed"] == rows["sequence"].map({3: "f3", 5: "f5"})).all()
    assert set(rows["measure"]) == (
        {"log_prob", "rank", "log_rank", "top1"} if ranks else {"log_prob"}
    )


def test_text_is_divided_by_what_came_before() -> None:
    bridge = shared_bridge("llama")
    tokens = [0, 5, 6, 7, 5, 6, 9, 5, 6, 7, 20]
    edges = [3.0, 5.0, 7.0]
    texts = [text(0, tokens), text(1, tokens[:4])]
    with torch.no_grad(), float64_softmax():
        rows = measure_text(bridge, **parameters(texts), edges=edges, surprising=5.0, recent=2)
        clean = step_by_step(bridge, tokens, NO_PATCH, 0)
        patched = step_by_step(bridge, tokens, ARMS[1], 0)
    surprisal = [float("nan")] + [-float(clean[i - 1, tokens[i]]) for i in range(1, 11)]
    loss = [-float(patched[i, tokens[i + 1]]) for i in range(10)]
    # (5, 6) comes again at positions 4 and 7, (6, 7) at 8; nothing else was seen before.
    copied = {4, 7, 8}
    surprised = {i for i in range(1, 10) if surprisal[i] >= 5}
    assert surprised, "the test needs a surprising token"
    expected = {
        "copyable": copied,
        "other": set(range(10)) - copied,
        "bin-0": {i for i in range(1, 10) if surprisal[i] < 3},
        "bin-1": {i for i in range(1, 10) if 3 <= surprisal[i] < 5},
        "bin-2": {i for i in range(1, 10) if 5 <= surprisal[i] < 7},
        "bin-3": {i for i in range(1, 10) if surprisal[i] >= 7},
        "surprise-now": surprised,
        "surprise-recent": {i for i in range(2, 10) if i - 1 in surprised} - surprised,
        "surprise-none": {i for i in range(1, 10) if i not in surprised and i - 1 not in surprised},
    }
    for tag, where in expected.items():
        assert total(rows, ARMS[1], 0, "loss", tag) == pytest.approx(
            sum(loss[i] for i in where), abs=1e-9
        ), tag
        chosen = rows[(rows["sequence"] == 0) & rows["category"].str.endswith(tag)]
        assert set(chosen["count"]) == {len(where)}, tag
    # The second text is the beginning of the first: a causal model gives it the same losses.
    assert total(rows, ARMS[1], 1, "loss", "other") == pytest.approx(sum(loss[:3]), abs=1e-9)


def test_the_model_without_a_patch_divides_even_where_it_is_not_reported() -> None:
    bridge = shared_bridge("llama")
    texts = [text(0, [0, 5, 6, 7, 5, 6, 9])]
    options = {"edges": [3.0, 5.0], "surprising": 5.0, "recent": 2}
    with torch.no_grad(), float64_softmax():
        both = measure_text(bridge, **parameters(texts), **options)
        alone = measure_text(bridge, **parameters(texts, ARMS[1:]), **options)
    without = both[both["source"] != "none"].set_index(["source", "category"])["total"]
    # A batch of three arms rounds its float64 sums otherwise than one of four.
    pd.testing.assert_series_equal(
        alone.set_index(["source", "category"])["total"].sort_index(),
        without.sort_index(),
        rtol=1e-9,
    )


@pytest.mark.parametrize("told", [ARMS, ARMS[1:], ARMS[:1]])
def test_repeats_are_those_of_text_and_other_tokens_are_read_once(told: Sequence[Arm]) -> None:
    bridge = shared_bridge("llama")
    said = [5, 6, 7, 5, 6, 9, 5, 6, 7, 20]
    # Unequal lengths, the last text without a repeat at all.
    texts = [text(0, [0, *said]), text(1, [0, *said[:5]]), text(2, [0, 11, 12, 13])]
    with torch.no_grad(), float64_softmax():
        asked = parameters(texts, told)
        rows = measure_repeats(bridge, **asked, surprising=4.0)
        whole = measure_text(bridge, **asked, edges=[4.0], surprising=4.0, recent=2)
    repeats = whole[whole["category"].str.contains("repeat")]
    expected = repeats[
        ~repeats["category"].str.endswith("repeat-none") | (repeats["source"] == NO_PATCH.source)
    ]
    assert expected.loc[expected["category"].str.contains("repeat-32"), "count"].sum() > 0
    key = ["sequence", "category", *ARM_COLUMNS]
    pd.testing.assert_frame_equal(
        rows.sort_values(key).reset_index(drop=True),
        expected.sort_values(key).reset_index(drop=True),
        rtol=1e-9,
    )


def test_few_predictions_are_multiplied_where_few_are_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bridge = shared_bridge("llama")
    read: list[int] = []

    def counted(
        bridge: TransformerBridge, tokens: Sequence, arms: Sequence[Arm], *others: object
    ) -> Tensor:
        log_probs = read_log_probs(bridge, tokens, arms, *others)
        read.append(int((~log_probs.isnan()).sum()) // len(arms))
        return log_probs

    monkeypatch.setattr(copy_rows, "read_log_probs", counted)
    texts = [text(0, [0, 5, 6, 7, 5, 8, 9])]
    rows = measure_repeats(bridge, **parameters(texts), surprising=4.0)
    known = rows[rows["source"] == NO_PATCH.source]
    repeats = known.loc[~known["category"].str.endswith("repeat-none"), "count"].sum()
    assert read == [6, repeats]
    assert repeats == 1
