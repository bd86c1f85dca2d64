"""Ranks and log-probabilities at every point, against TransformerLens's own modules."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments.preservation.lens_ranks import (
    measure_templates,
    measure_tokens,
    points_read,
)
from lens_interventions.experiments.preservation.stages import template_items
from lens_interventions.experiments.preservation.token_rows import later
from tests.support.small_preservation import SMALL, long_bridge
from tests.support.tiny import tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")


def documents() -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    return [
        {"cluster": name, "tokens": torch.randint(4, 112, (n,), generator=generator).tolist()}
        for name, n in (("a", 9), ("b", 9), ("c", 8))
    ]


def naive_log_probs(bridge: TransformerBridge, tokens: list[int]) -> list[torch.Tensor]:
    """`[pos, d_vocab]` at every residual point, by TransformerLens's own modules."""
    _, cache = bridge.run_with_cache(torch.tensor([tokens]))
    n = int(bridge.cfg.n_layers)
    points = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(n)]
    points.append(cache[f"blocks.{n - 1}.hook_resid_post"])
    return [bridge.unembed(bridge.ln_final(r))[0].log_softmax(-1) for r in points]


def test_ranks_log_probs_and_surprisal_are_the_lens_s(llama: TransformerBridge) -> None:
    rows = measure_tokens(llama, documents(), 1)
    for document in documents():
        tokens = document["tokens"]
        points = naive_log_probs(llama, tokens)
        for point, log_probs in enumerate(points):
            here = rows[(rows["document"] == document["cluster"]) & (rows["point"] == point)]
            assert here["position"].tolist() == list(range(1, len(tokens)))
            for row in here.to_dict("records"):
                position = row["position"]
                at = log_probs[position]
                assert row["rank"] == int((at > at[tokens[position]]).sum())
                assert_allclose(row["log_prob"], float(at[tokens[position]]), atol=1e-9)
                before = points[-1][position - 1]
                assert_allclose(row["surprisal"], -float(before[tokens[position]]), atol=1e-9)


def test_elsewhere_is_a_position_of_another_document(llama: TransformerBridge) -> None:
    """Each value is found at some position of another document that holds another token."""
    rows = measure_tokens(llama, documents(), 1)
    read = {d["cluster"]: naive_log_probs(llama, d["tokens"]) for d in documents()}
    tokens = {d["cluster"]: d["tokens"] for d in documents()}
    assert rows["elsewhere_rank"].notna().mean() > 0.8
    for row in rows[rows["elsewhere_log_prob"].notna()].to_dict("records"):
        candidates = [
            float(points[row["point"]][position, row["token"]])
            for name, points in read.items()
            if name != row["document"]
            for position in range(1, len(tokens[name]))
            if tokens[name][position] != row["token"]
        ]
        # float64 all the way; the batch is padded here and not there.
        assert np.abs(np.array(candidates) - row["elsewhere_log_prob"]).min() < 1e-9


def test_elsewhere_is_nowhere_where_the_other_position_is_of_the_same_document(
    llama: TransformerBridge,
) -> None:
    texts = [
        {"cluster": "long", "tokens": [1, *range(20, 39)]},
        {"cluster": "short", "tokens": [1, *range(50, 55)]},
    ]
    # All 24 tokens differ; half the way round is 12 further.
    flat = [text["cluster"] for text in texts for _ in text["tokens"][1:]]
    same = [flat[i] == flat[(i - 12) % 24] for i in range(24)]
    assert 0 < sum(same) < 24
    rows = measure_tokens(llama, texts, 1)
    for _, here in rows.groupby("point"):
        assert here["document"].tolist() == flat
        assert here["elsewhere_rank"].isna().tolist() == same
        assert here["elsewhere_log_prob"].isna().tolist() == same


def test_templates_are_read_at_their_word_and_scored_at_its_copy() -> None:
    bridge = long_bridge()
    items = template_items(bridge, SMALL)
    assert len(items) == 96  # 6 groups, 4 frames, a common and a rare word, near and far
    for item in items:
        prefix, word, first = item["prefix"], item["word"], item["first"]
        assert [prefix[i] for i in first] == word
        assert bridge.tokenizer.decode(word).strip() == item["said"]
    chosen = [items[0], items[-1]]
    rows = measure_templates(bridge, chosen, 1)
    for item in chosen:
        text = [*item["prefix"], *item["word"]]
        points = naive_log_probs(bridge, text)
        start = len(item["prefix"])
        copied = sum(
            float(points[-1][start + n - 1, token]) for n, token in enumerate(item["word"])
        )
        for point, log_probs in enumerate(points):
            (row,) = rows[(rows["item"] == item["item"]) & (rows["point"] == point)].to_dict(
                "records"
            )
            ranks = [int((log_probs[i] > log_probs[i, text[i]]).sum()) for i in item["first"]]
            assert_allclose(row["log_rank"], np.log1p(ranks).mean(), atol=1e-9)
            assert_allclose(row["copy_log_prob"], copied, atol=1e-9)


@pytest.mark.parametrize(
    ("n_layers", "every", "points", "judged"),
    [
        (1, 10, 2, (0,)),
        (2, 3, 3, (1,)),
        (3, 3, 4, (2,)),
        (4, 3, 5, (2, 3)),
        (10, 10, 5, (2, 3)),
        (30, 10, 4, (2,)),
        (30, 3, 11, (5, 6, 7, 8, 9)),
    ],
)
def test_points_are_left_to_judge_by(
    n_layers: int, every: int, points: int, judged: tuple[int, ...]
) -> None:
    labels = points_read(tiny_bridge("llama", num_hidden_layers=n_layers), every)
    assert len(labels) == points
    assert tuple(later(labels)) == judged
