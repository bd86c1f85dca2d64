"""Another round of a passage, and where the lens notices it."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch.utils._python_dispatch import TorchDispatchMode
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments.design.conditions import (
    Cell,
    source_arms,
)
from lens_interventions.experiments.design.sequences import token_list
from lens_interventions.experiments.loops.rounds import measure_noticing, measure_rounds
from lens_interventions.experiments.loops.stages import passage_items
from lens_interventions.experiments.loops.tables import noticing_table
from tests.support.arms import ARMS, PATCH, next_logits
from tests.support.exact import float64_softmax
from tests.support.small_loops import SETTINGS
from tests.support.tiny import D_VOCAB, spaced_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("without_gradients")


def test_rounds_hold_no_space_of_their_own_where_a_tokenizer_begins_texts_with_one() -> None:
    bridge = li.load_model(hf_model=tiny_model("llama"), tokenizer=spaced_tokenizer(), device="cpu")
    texts = [passage.text for passage in li.materials.passages(at_least=SETTINGS.passages)]
    twice = [token_list(bridge, f"{text} {text}") for text in texts]
    assert all(item["said"] * 2 in twice for item in passage_items(bridge, SETTINGS))


@float64_softmax()
def test_another_round_is_scored_as_if_it_were_sampled(llama: TransformerBridge) -> None:
    start, said = [1], [20, 31, 42]
    passage = {"number": 7, "half": "report", "start": start, "said": said, "rounds": 3}
    rows = measure_rounds(llama, [passage], [arm.columns() for arm in ARMS], asdict(PATCH))
    assert len(rows) == len(ARMS) * 2 * 2
    for arm in ARMS:
        for k in (1, 2):
            text, log_prob = [*start, *said * k], 0.0
            for token in said:
                log_prob += float(next_logits(llama, text, arm).log_softmax(-1)[token])
                text.append(token)
            here = rows[(rows["source"] == arm.source) & (rows["category"] == f"k-{k}")]
            found = here.set_index("measure")["total"]
            assert set(found.index) == {"again", "log_odds"}
            # Small ones too, of which the relative error tells.
            probability = math.exp(log_prob)
            assert_allclose(found["again"], probability, rtol=1e-9)
            assert_allclose(found["log_odds"], math.log(probability / (1 - probability)), rtol=1e-9)


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


def test_the_share_at_the_top_is_one_of_tokens_and_not_of_passages() -> None:
    of_passages = {"count": [2, 6], "log_rank": [0.0, 12.0], "top": [2, 0]}
    rows = pd.DataFrame({"round": 1, "point": 0, "label": "0_pre", **of_passages})
    (row,) = noticing_table(rows, SETTINGS).to_dict("records")
    assert row["top_share"] == 2 / 8
    assert row["estimate"] == pytest.approx(12 / 8, rel=1e-12)
