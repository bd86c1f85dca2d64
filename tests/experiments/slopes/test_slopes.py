"""The slopes experiment from start to end, and on a model where the true source is what helps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import lens_interventions as li
from lens_interventions.experiments import Result, load_result
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.material import induction_sequences
from lens_interventions.experiments.design.sequences import REPORT, SELECTION, TokenSequence
from lens_interventions.experiments.slopes import slopes
from lens_interventions.experiments.slopes.bounds import lowest, sided, worst
from lens_interventions.experiments.slopes.ceiling import (
    asked_of_ceiling,
    ceiling_table,
    measure_ceiling,
)
from tests.support.planted import planted_bridge
from tests.support.small_slopes import SMALL
from tests.support.tiny import tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients", "unrounded")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run on a tiny model, and its directory."""
    out = tmp_path_factory.mktemp("slopes")
    with torch.no_grad():
        return slopes(tiny_bridge("gpt2"), settings=SMALL, out=out), out


def test_a_run_from_start_to_end(finished: tuple[Result, Path]) -> None:
    result, out = finished
    cells = result.to_dataframe()
    # Two materials, three layers, two sources.
    assert len(cells) == 2 * 3 * 2
    assert cells["measured_estimate"].notna().sum() == 2 * 2
    # Of each of two materials slopes, news and a patched run; rescue; heads. Of prose the ceiling.
    assert len(result.verdicts) == 2 * (3 + 1 + 1) + 1
    grid = result.tables["slopes"]
    assert len(grid) == 2 * len(SMALL.modes) * 3 * (4 + 3)
    for name in ("slopes", "rescue", "heads", "kinds", "ceiling"):
        table = result.tables[name]
        assert ((table["low"] <= table["estimate"]) & (table["estimate"] <= table["high"])).all()
    loaded = load_result(out)
    assert_frame_equal(loaded.to_dataframe(), cells)
    assert {finding.figure for finding in result.verdicts} <= set(loaded.figures())


def test_curvatures_are_those_of_the_library(finished: tuple[Result, Path]) -> None:
    bridge = tiny_bridge("gpt2")
    texts = [s.tokens for s in induction_sequences(bridge, SMALL.material)][: SMALL.curved_texts]
    patch = li.NextTokenPatch(
        layer=1,
        strength=1.0,
        mode="add",
        scale="norm",
        embedding=SMALL.embedding,
        positions=range(1, 25),
    )
    found = li.curvature(
        bridge, [torch.tensor([text]) for text in texts], [patch], scopes=["copyable"]
    )
    table = finished[0].to_dataframe().set_index(["material", "layer", "source"])
    # That of the library is extrapolated from two steps.
    assert table.loc[("copies", 1, "true"), "curvature"] == pytest.approx(
        found.to_dataframe()["curvature"][0], rel=1e-2
    )


def test_rescue_and_heads_are_those_of_the_library(finished: tuple[Result, Path]) -> None:
    bridge = tiny_bridge("gpt2")
    texts = [
        torch.tensor([s.tokens])
        for s in induction_sequences(bridge, SMALL.material)
        if s.half == "report"
    ][: SMALL.mechanism_texts]
    patch = li.NextTokenPatch(
        layer=range(3),
        strength=0.1,
        mode="add",
        scale="norm",
        embedding=SMALL.embedding,
        positions=range(1, 25),
    )
    rescued = li.rescue(
        bridge,
        texts,
        replace(patch, layer=2),
        sources=SMALL.rescue_sources,
        max_length=25,
        progress=False,
    ).to_dataframe()
    keys = ["layer", "through", "condition", "minus"]
    found = finished[0].tables["rescue"]
    found = found[found["material"] == "copies"].set_index(keys)["estimate"]
    expected = rescued[(rescued["minus"] != "") & (rescued["minus"] != "clean")]
    expected = expected.set_index(keys)["estimate"]
    expected = expected.drop([place for place in expected.index if place not in found.index])
    # What is hidden; sources and leads; through keys and through values one control alone.
    assert len(expected) == 1 + (3 + 2) + 2 * (2 + 1)
    np.testing.assert_allclose(found[expected.index], expected, rtol=1e-9)

    slopes_of = li.head_slopes(
        bridge, texts, patch, sources=SMALL.head_sources, max_length=25, progress=False
    ).to_dataframe()
    keys = ["layer", "head", "part", "minus"]
    expected = slopes_of[slopes_of["minus"] != ""].set_index(keys)["estimate"]
    heads = finished[0].tables["heads"]
    heads = heads[heads["material"] == "copies"]
    np.testing.assert_allclose(
        heads.set_index(keys)["estimate"][expected.index], expected, rtol=1e-9, atol=1e-12
    )
    kinds = finished[0].tables["kinds"].set_index(["material", "kind", "part", "minus"])
    for (kind, part, minus), each in heads.groupby(["kind", "part", "minus"]):
        total = kinds.loc[("copies", kind, part, minus), "estimate"]
        assert total == pytest.approx(each["estimate"].sum(), rel=1e-9)


def test_the_ceiling_of_linear_writes_compares_with_and_without_the_token(
    finished: tuple[Result, Path],
) -> None:
    table = finished[0].tables["ceiling"]
    slopes_of = table.pivot(index="layer", columns="write", values="estimate")
    assert list(slopes_of.index) == [0, 2]
    np.testing.assert_allclose(
        slopes_of["increment"], slopes_of["with"] - slopes_of["without"], rtol=1e-9
    )
    # No write as long as the residual at each position is steeper than one down its gradient.
    assert (slopes_of["free"] < slopes_of[["with", "without"]].min(axis=1)).all()
    fitted = table["write"].isin(["with", "without"])
    assert (table["change"].notna() == fitted).all()
    assert (table[fitted]["change"] <= 0).all()


def test_the_ceiling_says_how_many_texts_there_were_and_not_how_many_there_could_be() -> None:
    def text(half: str, number: int, length: int) -> dict:
        tokens = tuple(range(number, number + length))
        return TokenSequence(number, half, str(number), "prose", tokens, 0).values()

    rows = measure_ceiling(
        tiny_bridge("gpt2"),
        [text(SELECTION, number, 14) for number in range(5)],
        [text(REPORT, 10, 9), text(REPORT, 11, 12)],
        curved=[0],
        layers=[1],
        step=0.01,
    )
    assert SMALL.ceiling_documents == (4, 2)
    assert SMALL.ceiling_tokens == 48
    (found,) = asked_of_ceiling(ceiling_table(rows, SMALL), rows, SMALL)
    assert "2 held-out texts of up to 12 tokens" in found.method
    assert "fitted to 5 others" in found.method


def test_the_kept_rows_are_those_of_the_tables(finished: tuple[Result, Path]) -> None:
    tables = finished[0].tables
    for table, places in (
        ("slopes", ["material", "mode", "layer", "source"]),
        ("ceiling", ["material", "layer", "write"]),
    ):
        sums = tables[f"{table}_rows"].groupby(places)[["total", "count"]].sum()
        means = sums["total"] / sums["count"]
        told = tables[table]
        single = told["minus"] == "" if table == "slopes" else told["write"] != "increment"
        told = told[single].set_index(places)["estimate"]
        assert len(told) == len(means)
        np.testing.assert_allclose(means[told.index], told, rtol=1e-9, atol=1e-12)
    rescued = tables["rescue_rows"].groupby(["material", "layer", "condition"])
    means = rescued["total"].sum() / rescued["count"].sum()
    hidden = tables["rescue"][tables["rescue"]["condition"] == "clean"]
    for row in hidden.to_dict("records"):
        clean, bare = (means[row["material"], row["layer"], name] for name in ("clean", "hidden"))
        assert row["estimate"] == pytest.approx(clean - bare, rel=1e-9)
    of_kinds = tables["heads_rows"].groupby(["material", "kind", "part", "source"])
    means = of_kinds["total"].sum() / of_kinds["count"].sum()
    for row in tables["kinds"].to_dict("records"):
        place = (row["material"], row["kind"], row["part"])
        difference = means[(*place, "true")] - means[(*place, row["minus"])]
        assert row["estimate"] == pytest.approx(difference, rel=1e-9, abs=1e-12)
    patched = tables["patched_rows"].groupby(["material", "layer", "source"])
    means = patched["total"].sum() / patched["count"].sum()
    changes = tables["patched"][tables["patched"]["minus"] == "no patch"]
    assert len(changes) == len(means)
    for row in changes.to_dict("records"):
        mean = means[row["material"], row["layer"], row["source"]]
        assert row["estimate"] == pytest.approx(mean, rel=1e-9)


def test_the_lowest_lead_is_as_sure_as_the_surest_cell_that_leads_them_all() -> None:
    cells = pd.DataFrame(
        [
            # The lead over one control is sure and over the other it is not.
            ("a", "shuffled", -3.0, -4.0, -2.0, 0.001),
            ("a", "current", -1.0, -2.5, 0.5, 0.2),
            # Both are fairly sure.
            ("b", "shuffled", -2.0, -3.5, -0.5, 0.01),
            ("b", "current", -2.0, -3.2, -0.8, 0.004),
            # It falls behind one.
            ("c", "shuffled", 3.0, 1.0, 5.0, 0.002),
            ("c", "current", -4.0, -5.0, -3.0, 0.001),
        ],
        columns=["cell", "minus", "estimate", "low", "high", "p_value"],
    ).assign(n=7)
    leads = worst(cells, ["cell"])
    assert leads["p_below"].to_dict() == {"a": 0.2, "b": 0.01, "c": 1.0}
    assert leads["p_above"].to_dict() == {"a": 1.0, "b": 1.0, "c": 0.002}
    found = lowest(leads, cells, SMALL)
    assert found.p_value == 0.01
    assert (found.interval.estimate, found.interval.low, found.interval.high) == (-2, -3.2, -0.5)
    # All above 0: as sure as the least sure.
    above = cells[cells["estimate"] > 0].assign(p_value=[0.002])
    both = pd.concat([above, above.assign(p_value=0.03)])
    assert lowest(sided(both), both, SMALL).p_value == 0.03


def test_the_question_about_heads_is_about_a_weak_write(finished: tuple[Result, Path]) -> None:
    """The slope of the kind that leads the best control by most, times the weak strength."""
    kinds = finished[0].tables["kinds"].query("material == 'copies'")
    lead = kinds.groupby(["kind", "part"])["estimate"].max().min()
    (found,) = [
        finding.verdict.interval.estimate
        for finding in finished[0].verdicts
        if "any kind of head" in finding.question and "copies" in finding.question
    ]
    assert found == pytest.approx(SMALL.weak * lead, rel=1e-12)


def test_verdicts_are_corrected_over_all_questions(finished: tuple[Result, Path]) -> None:
    findings = finished[0].verdicts
    for found in findings:
        assert found.verdict.p_value is not None
        assert f"Holm's method over {len(findings)} questions" in found.method


def test_a_planted_source_is_found_and_controls_are_not() -> None:
    # An interval over the whole grid needs more than a handful of texts, and p-values that are
    # corrected over eleven questions need more resamples to be small.
    settings = replace(
        SMALL,
        induction_sequences=(3, 20),
        batch=10,
        modes=("add",),
        resampling=Resampling(n_resamples=999),
    )
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
    rescued = result.tables["rescue"]
    rescued = rescued[(rescued["material"] == "copies") & (rescued["layer"] == 1)]
    against = rescued[(rescued["condition"] == "true")].set_index(["through", "minus"])
    for control in ("hidden", settings.rescue_sources[1]):
        assert against.loc[("values", control), "high"] < 0
        assert abs(against.loc[("keys", control), "estimate"]) < 1e-6
    heads = result.tables["heads"]
    heads = heads[(heads["material"] == "copies") & (heads["layer"] == 1)].set_index("part")
    assert (heads.loc["values", "high"] < 0).all()
    assert (heads.loc["keys", "estimate"].abs() < 1e-6).all()
    *_, panel = result.figures()["gain"].data
    below, patched_there = panel.text
    assert "✓" in patched_there[list(panel.x).index("true")]
    assert not {"✓", "✗"} & {*"".join(below)}
    promising = [outcome for asked, outcome in by_question.items() if "promises most" in asked]
    assert promising[-1] == "helps"


def test_slopes_and_patched_losses_are_those_of_the_library(
    finished: tuple[Result, Path],
) -> None:
    bridge, (result, _) = tiny_bridge("gpt2"), finished
    texts = [s.tokens for s in induction_sequences(bridge, SMALL.material)]
    found = li.slope_map(
        bridge,
        [bridge.W_E.new_tensor([text]).long() for text in texts],
        sources=SMALL.sources,
        embeddings=[SMALL.embedding],
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
        ({"cells": 0}, "cells must be at least 1, got 0"),
        ({"modes": ("add", "add")}, "modes must be different values"),
        ({"head_sources": ("true", "random", "random")}, "head_sources must be different values"),
        ({"weak": 0.5}, "weak"),
        ({"rescue_strengths": ()}, "rescue_strengths"),
        ({"rescue_sources": ("true",)}, "rescue_sources must be true and then controls"),
        ({"head_sources": ("shuffled", "true")}, "head_sources must be true and then controls"),
        ({"documents": (0, 4)}, "documents"),
        ({"texts": ("prose", "copies")}, r"write \./copies"),
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
