"""The experiment on unlikely tokens: verdicts on planted data, losses by loops, a tiny run."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from lens_interventions.experiments import UnlikelySettings, load_result, unlikely
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.unlikely.ablation import (
    LIKELY,
    NOTHING,
    RANDOM,
    TOKENS,
    measure_ablation,
)
from lens_interventions.experiments.unlikely.analysis import analyse
from lens_interventions.intervention.mean_residuals import mean_residuals
from lens_interventions.lens.unlikely_pool import Matching
from lens_interventions.lens.unlikely_tokens import GROUPS, MEASURES
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")

SMALL = UnlikelySettings(
    texts=("prose",),
    documents=4,
    document_tokens=16,
    below=1e-3,
    directions=40,
    ablated=3,
    depths=(0.4, 0.8),
    batch=2,
    resampling=Resampling(n_resamples=199),
)
POINTS = ["0_pre", "1_pre", "2_pre", "final_post"]


def planted(effect: float) -> dict[str, pd.DataFrame]:
    """Tables of 30 documents; unlikely tokens have `effect` more size, less left and more loss."""
    rng = np.random.default_rng(1)
    components = [
        {
            "statistic": statistic,
            "group": group,
            "point": point,
            "document": f"d{document}",
            "value": 1 + sign * effect * (group == GROUPS[0]) + 0.01 * rng.normal(),
            "unlikely": 0.9,
        }
        for statistic, sign in zip(MEASURES, (1, -1), strict=True)
        for group in GROUPS
        for point in POINTS
        for document in range(30)
    ]
    ablation = [
        {
            "document": f"d{document}",
            "layer": layer,
            "taken_out": name,
            "total": 10 * (3 + effect * (name == TOKENS) + 0.001 * rng.normal()),
            "count": 10,
            "removed": 0.1 * (name != NOTHING),
        }
        for document in range(30)
        for layer in (1, 2)
        for name in (NOTHING, TOKENS, RANDOM, LIKELY)
    ]
    return {"components": pd.DataFrame(components), "ablation": pd.DataFrame(ablation)}


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (0.3, ["helps", "helps", "hurts"]),
        (0.0, ["no effect"] * 3),
        (-0.3, ["hurts", "hurts", "helps"]),
    ],
)
def test_planted_effects_are_found_and_planted_nulls_are_not(effect, expected):
    found = analyse(SMALL, planted(effect))
    assert [finding.verdict.outcome for finding in found.verdicts] == expected
    estimates = [finding.verdict.interval.estimate for finding in found.verdicts]
    assert estimates == pytest.approx([effect, -effect, effect], abs=0.01)


def test_components_are_judged_in_the_middle_third_and_losses_over_all_layers() -> None:
    tables = planted(0.3)
    components, ablation = tables["components"], tables["ablation"]
    outside = ~components["point"].isin(POINTS[1:2])
    components.loc[outside & (components["group"] == GROUPS[0]), "value"] += 5
    second = (ablation["layer"] == 2) & (ablation["taken_out"] == TOKENS)
    ablation.loc[second, "total"] += 10 * 0.2
    found = analyse(SMALL, tables)
    estimates = [finding.verdict.interval.estimate for finding in found.verdicts]
    assert estimates == pytest.approx([0.3, -0.3, (0.3 + 0.5) / 2], abs=0.01)
    losses = found.tables["ablation"].set_index(["layer", "taken_out", "minus"])["estimate"]
    assert losses["1", TOKENS, RANDOM] == pytest.approx(0.3, abs=0.01)
    assert losses["2", TOKENS, RANDOM] == pytest.approx(0.5, abs=0.01)
    assert losses["mean", TOKENS, RANDOM] == pytest.approx(0.4, abs=0.01)


def test_the_loss_is_that_of_each_position_s_strongest_directions_taken_out():
    """Against loops, with a projection by least squares."""
    bridge = shared_bridge("llama")
    tokens = [0, 5, 9, 33, 71, 20, 8]
    with left_as_found(bridge):
        rows = measure_ablation(
            bridge,
            [{"cluster": "a", "tokens": tokens}],
            layers=[1],
            below=1e-3,
            directions=40,
            ablated=3,
            seed=5,
        ).set_index("taken_out")
    text, mean = torch.tensor([tokens]), mean_residuals(bridge)[1]
    logits, cache = bridge.run_with_cache(text)
    moved = cache["blocks.1.hook_resid_pre"][0] - mean
    lowest = logits[0].logsumexp(-1) + math.log(1e-3)
    read = readout(bridge)
    chosen = {LIKELY: read.unit_directions(read.weight[logits[0].topk(3).indices])}
    for name, pool in zip((TOKENS, RANDOM), Matching.of(read).draw(40, 5), strict=True):
        raw = bridge.ln_final(cache["blocks.2.hook_resid_post"])[0] @ pool.read.weight.T
        chosen[name] = torch.stack(
            [
                max_rows(pool.directions[row < low], vector)
                for row, low, vector in zip(raw, lowest, moved, strict=True)
            ]
        )
    for name in (NOTHING, TOKENS, RANDOM, LIKELY):
        change = torch.zeros_like(moved)
        for position in range(1, len(tokens)) if name != NOTHING else ():
            own = chosen[name][position]
            change[position] = torch.linalg.lstsq(own.T, moved[position, :, None])[0][:, 0] @ own

        def take_out(tensor, hook, change=change):
            return tensor - change

        after = bridge.run_with_hooks(text, fwd_hooks=[("blocks.1.hook_resid_pre", take_out)])
        loss = torch.nn.functional.cross_entropy(after[0, :-1], text[0, 1:], reduction="sum")
        assert rows.loc[name, "total"] == pytest.approx(float(loss), abs=1e-6)
        share = change[1:].square().sum() / moved[1:].square().sum()
        assert rows.loc[name, "removed"] == pytest.approx(float(share), abs=1e-6)
        assert rows.loc[name, "count"] == 6


def max_rows(directions: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """The three directions along which a vector lies most."""
    return directions[(directions @ vector).abs().argsort(descending=True)[:3]]


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    result = unlikely(lambda: tiny_bridge("llama"), settings=SMALL, out=tmp_path)
    table = result.to_dataframe()
    assert table["point"].unique().tolist() == POINTS
    assert table["n"].max() == 4
    assert result.tables["ablation"]["layer"].unique().tolist() == ["1", "2", "mean"]
    loaded = load_result(tmp_path)
    assert_frame_equal(loaded.to_dataframe(), table)
    assert {finding.figure for finding in result.verdicts} == set(loaded.figures())


def test_settings_that_leave_nothing_to_measure_are_refused() -> None:
    with pytest.raises(ValueError, match=r"depths must be one or more.*got \(1\.0,\)"):
        replace(SMALL, depths=(1.0,))
    with pytest.raises(ValueError, match="ablated must be at most directions, got 41 and"):
        replace(SMALL, ablated=41)


def test_where_no_direction_is_unlikely_nothing_is_said_of_taking_some_out() -> None:
    """No token of a small random model has so low a probability."""
    found = unlikely(shared_bridge("llama"), settings=replace(SMALL, below=1e-12))
    for finding in found.verdicts:
        assert str(finding.verdict).startswith("undecided: nothing was measured"), finding
    unlikely_ones = found.tables["ablation"].query("taken_out == @TOKENS")
    assert unlikely_ones["removed"].eq(0).all()
    assert unlikely_ones["n"].eq(0).all()


def test_more_directions_than_tokens_cannot_be_taken_out() -> None:
    with pytest.raises(ValueError, match="ablated=200 is more than the 112 tokens"):
        unlikely(shared_bridge("llama"), settings=replace(SMALL, directions=500, ablated=200))


def test_documents_without_two_different_tokens_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("aaaa\n\nbbbb")
    with pytest.raises(
        ValueError,
        match="gave 0 documents with two different tokens after the first, and the experiment",
    ):
        unlikely(
            shared_bridge("llama"),
            settings=replace(SMALL, texts=(str(tmp_path / "short.txt"),), documents=2),
        )
