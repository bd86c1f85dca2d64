"""The slopes experiment from start to end, and on a model where the true source is what helps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pandas.testing import assert_frame_equal

import lens_interventions as li
from lens_interventions.experiments import load_result
from lens_interventions.experiments.design.material import induction_sequences
from lens_interventions.experiments.slopes import slopes
from tests.support.planted import planted_bridge
from tests.support.small_slopes import SMALL
from tests.support.tiny import tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    result = slopes(tiny_bridge("llama"), settings=SMALL, out=tmp_path)
    cells = result.to_dataframe()
    # Two materials, three layers, two sources.
    assert len(cells) == 2 * 3 * 2
    assert cells["measured_estimate"].notna().sum() == 2 * 2
    assert len(result.verdicts) == 2 * 3
    grid = result.tables["slopes"]
    assert len(grid) == 2 * len(SMALL.modes) * 3 * (4 + 3)
    assert ((grid["low"] <= grid["estimate"]) & (grid["estimate"] <= grid["high"])).all()
    loaded = load_result(tmp_path)
    assert_frame_equal(loaded.to_dataframe(), cells)
    assert {finding.figure for finding in result.verdicts} <= set(loaded.figures())


def test_a_planted_source_is_found_and_controls_are_not() -> None:
    # An interval over the whole grid needs more than a handful of texts.
    settings = replace(SMALL, induction_sequences=(3, 30), batch=10, modes=("add",))
    result = slopes(planted_bridge(), settings=settings)
    grid = result.tables["slopes"]
    copies = grid[(grid["material"] == "copies") & (grid["mode"] == "add")]
    true = copies[(copies["source"] == "true") & (copies["minus"] == "") & (copies["layer"] == 1)]
    assert float(true["high"].iloc[0]) < 0
    against = copies[(copies["minus"] != "") & (copies["layer"] == 1)]
    assert (against["high"] < 0).all()
    alone = copies[(copies["source"].isin(["current", "random"])) & (copies["minus"] == "")]
    assert (alone["low"] > 0.1 * float(true["estimate"].iloc[0])).all()
    patched = result.tables["patched"]
    chosen = patched[(patched["material"] == "copies") & (patched["source"] == "true")]
    assert (chosen["layer"] == 1).all()
    assert (chosen["high"] < 0).all()
    by_question = {found.question: found.verdict.outcome for found in result.verdicts}
    promising = [outcome for asked, outcome in by_question.items() if "promises most" in asked]
    assert promising[-1] == "helps"


def test_slopes_and_patched_losses_are_those_of_the_library() -> None:
    bridge = planted_bridge()
    result = slopes(bridge, settings=SMALL)
    texts = [s.tokens for s in induction_sequences(bridge, SMALL.material)]
    found = li.slope_map(
        bridge,
        [bridge.W_E.new_tensor([text]).long() for text in texts],
        sources=SMALL.sources,
        scopes=["copyable"],
        progress=False,
    )
    grid = result.tables["slopes"]
    rows = grid[(grid["material"] == "copies") & (grid["minus"] == "") & (grid["mode"] == "add")]
    table = rows.pivot(index="source", columns="layer", values="estimate").loc[list(SMALL.sources)]
    np.testing.assert_allclose(table.to_numpy(), found.slopes[0, 0, 0], rtol=1e-9, atol=1e-12)
    patched = result.tables["patched"]
    row = patched[(patched["material"] == "copies") & (patched["minus"] == "no patch")].iloc[0]
    reported = texts[SMALL.induction_sequences[0] :]
    patch = found.patch(int(row["layer"]), strength=float(row["strength"]), source=row["source"])
    tokens = bridge.W_E.new_tensor(reported).long()
    clean, moved = -li.teacher_forced_log_probs(bridge, tokens, [None, patch])
    # The copy begins with a token that completes no pair.
    n = SMALL.induction_length - 1
    assert row["estimate"] == pytest.approx(float((moved - clean)[:, -n:].mean()), rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": ("true",)}, "at least one control"),
        ({"sources": ("true", "guess")}, "guess"),
        ({"sources": ("current", "random")}, "must be true"),
        ({"modes": ("correct",)}, "correct"),
        ({"curved_sources": ("true", "final_guess")}, "final_guess"),
        ({"curved_sources": ("random",)}, "curved_sources"),
        ({"cells": 0}, "at least 1"),
        ({"weak": 0.5}, "weak"),
        ({"documents": (0, 4)}, "documents"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **changes)


def test_texts_longer_than_the_model_reads_are_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    settings = replace(SMALL, induction_length=40)
    bridge = tiny_bridge("llama", max_position_embeddings=32)
    with pytest.raises(ValueError, match="the model reads 32"):
        slopes(bridge, settings=settings, out=tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))
