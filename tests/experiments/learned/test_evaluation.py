"""Copying under writes."""

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.design.conditions import NO_PATCH
from lens_interventions.experiments.design.kept_writes import encoded_write, read_write, write_bytes
from lens_interventions.experiments.design.sequences import TokenSequence
from lens_interventions.experiments.learned.evaluation import NO_SEED, measure_writes, over_seeds
from lens_interventions.experiments.learned.writes import Training
from tests.intervention.test_learned_write import random_write
from tests.support.tiny import shared_bridge


class TestEvaluation:
    def test_rows_are_of_each_write_and_averaged_over_seeds(self) -> None:
        bridge = shared_bridge("llama")
        texts = [TokenSequence(0, "report", "c", "t", (0, 50, 61, 52, 50, 61, 52), 3)]
        trainings = [Training("random", 1, 5, 1, seed) for seed in (4, 9)]
        writes = [random_write(bridge, source="random", trained_with="random") for _ in trainings]
        parameters = {
            t.name: {**t.columns(), "write": encoded_write(write_bytes(w))}
            for t, w in zip(trainings, writes, strict=True)
        }
        with torch.no_grad():
            rows = measure_writes(
                bridge, "induction", parameters, sequences=[text.values() for text in texts]
            )
            tokens = torch.tensor([texts[0].tokens])
            expected = [
                -float(li.teacher_forced_log_probs(bridge, tokens, patch)[0, -2:].sum())
                for patch in (
                    None,
                    *(
                        read_write(write_bytes(w)).patch(seed=t.seed)
                        for t, w in zip(trainings, writes, strict=True)
                    ),
                )
            ]
        losses = rows[rows["measure"] == "loss"]
        assert losses["seed"].tolist() == [NO_SEED, 4, 9]
        # On some processors a product of other rows rounds otherwise, in float32.
        np.testing.assert_allclose(losses["total"], expected, rtol=1e-6)
        assert expected[1] != pytest.approx(expected[2], abs=1e-3)
        means = over_seeds(losses)
        assert means["source"].tolist() == ["none", "random"]
        assert means["total"].iloc[1] == pytest.approx(np.mean(expected[1:]), rel=1e-6)
        assert means["count"].tolist() == [2, 2]
        assert NO_PATCH.mode in means["mode"].tolist()
