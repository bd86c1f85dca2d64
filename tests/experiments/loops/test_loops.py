"""The loops experiment from start to end: what is chosen, and verdicts on planted data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

from lens_interventions.experiments import load_result, read_tables
from lens_interventions.experiments.design.conditions import BACK_PATCH
from lens_interventions.experiments.loops import loops
from lens_interventions.experiments.loops.analysis import Choice, analyse
from lens_interventions.experiments.loops.choice import loops_cell
from lens_interventions.experiments.loops.stages import search
from lens_interventions.experiments.loops.tables import survival_table
from lens_interventions.intervention.sources import control_names
from lens_interventions.measures.intervals import holm, mean_interval
from lens_interventions.measures.verdicts import JOINT
from tests.support.small_loops import SETTINGS, roomy_bridge

pytestmark = [pytest.mark.usefixtures("without_gradients"), pytest.mark.long]


CONTROLS = (*control_names(), BACK_PATCH)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from start to end."""
    out = tmp_path_factory.mktemp("loops")
    loops(roomy_bridge, settings=SETTINGS, out=out)
    return out


def test_a_run_from_start_to_end(finished: Path) -> None:
    result = load_result(finished)
    table = result.to_dataframe()
    report = table[table["prompts"] == "report"]
    assert set(report["family"]) == {
        *("no patch", "true next token", "controls", "repetition penalty"),
        *("temperature", "true next token, temperature", "top-p", "min-p", "DoLa"),
    }
    assert (report["n"] == 6).all()
    assert report["loss"].notna().all()
    assert (report["source"].isin(CONTROLS)).sum() == len(CONTROLS)
    # All strengths of the chosen layer and mode make the frontier of the true token.
    assert (report["family"] == "true next token").sum() == len(SETTINGS.strengths)
    (greedy,) = table[(table["condition"] == "no patch, greedy") & (table["prompts"] == "all")]["n"]
    assert greedy == 12
    survival = result.tables["survival"]
    assert survival["estimate"].between(0, 1).all()
    begun = survival[survival["token"] == 0]
    assert sorted(begun["condition"]) == sorted(survival["condition"].unique())
    figure = result.figures()["survival"]
    assert "late loops of long rounds are missed" in figure.layout.title.subtitle.text
    grid = result.tables["grid"]
    assert grid.groupby("measure").size().unique().tolist() == [4]
    samples = result.tables["samples"]
    assert samples["prompt_number"].nunique() == SETTINGS.shown
    assert samples["condition"].nunique() == 5  # none, true, control; none and true at 0.7
    assert set(result.tables["escape"]["source"]) == {"none", "true", *CONTROLS}
    contrasts = result.tables["contrasts"]
    assert list(contrasts["question"].unique()) == ["loops", "repetition", "escape"]
    joint = contrasts[contrasts["minus"] == JOINT]
    assert joint["p_holm"].tolist() == holm(joint["p_value"].to_numpy()).tolist()
    assert {"none", JOINT} < set(contrasts["minus"]) <= {"none", JOINT, *CONTROLS}
    assert (contrasts["source"] == "true").all()
    figures = result.figures()
    assert {finding.figure for finding in result.verdicts} <= set(figures)
    assert len(figures["frontier"].data) == 2 * report["family"].nunique()


def test_the_control_whose_samples_are_shown_is_the_best_one_on_the_selection_half(
    finished: Path,
) -> None:
    rows = read_tables(finished)
    first, *_, last = Choice.of(rows, SETTINGS).controls
    samples = rows["samples"].copy()
    samples["looped"] = True
    of_half = {"selection": last, "report": first}
    for half, arm in of_half.items():
        samples.loc[(samples["half"] == half) & (samples["source"] == arm.source), "looped"] = False
    assert Choice.of(dict(rows) | {"samples": samples}, SETTINGS).control == last


def test_units_sample_no_more_texts_than_the_batch_allows() -> None:
    bridge = roomy_bridge()
    settings = replace(SETTINGS, batch=5, search_prompts=6)
    units = [unit for unit in search(bridge, settings, {}) if unit.table == "search"]
    texts = [
        [(str(arm), prompt["number"]) for arm in unit.parameters["arms"]
         for prompt in unit.parameters["prompts"]]
        for unit in units
    ]  # fmt: skip
    assert max(map(len, texts)) <= settings.batch
    # Each once: five arms (no patch and a grid of four) of six prompts.
    assert len({pair for unit in texts for pair in unit}) == sum(map(len, texts)) == 30


def test_intervals_of_conditions_take_the_resamples_of_the_settings(finished: Path) -> None:
    rows = read_tables(finished)
    conditions = analyse(SETTINGS, rows).tables["conditions"]
    of_rule = conditions[conditions["condition"] == "no patch, temperature 0.7"]
    (row,) = of_rule[of_rule["prompts"] == "report"].to_dict("records")
    samples = rows["samples"].query("source == 'none' and half == 'report'")
    rep_4 = samples[samples["rule"] == row["rule"]]["rep_4"].fillna(0).to_numpy()
    expected = mean_interval(rep_4, rng=np.random.default_rng(0), n_resamples=199)
    assert (row["rep_4_low"], row["rep_4_high"]) == (expected.low, expected.high)


def test_a_text_too_short_to_repeat_itself_counts_with_no_repetition(finished: Path) -> None:
    rows = read_tables(finished)
    samples = rows["samples"].assign(rep_2=1.0, rep_4=1.0)
    one = samples[samples["half"] == "report"]["prompt"].min()
    samples.loc[samples["prompt"] == one, ["rep_2", "rep_4"]] = np.nan
    conditions = analyse(SETTINGS, {**rows, "samples": samples}).tables["conditions"]
    report = conditions[conditions["prompts"] == "report"]
    assert_allclose(report[["rep_2", "rep_4"]], 5 / 6, rtol=1e-12)


def test_a_condition_tells_of_the_samples_that_looped_and_of_those_that_ended(
    finished: Path,
) -> None:
    rows = read_tables(finished)
    samples = rows["samples"]
    place = samples.groupby(["source", "layer", "strength", "rule", "half"]).cumcount()
    samples = samples.assign(
        looped=place < 2,
        onset=place.map({0: 0, 1: 2}).fillna(-1).astype(int),
        period=5,
        loop_length=16,
        n_tokens=samples["new_tokens"].where(place != 3, 5),
    )
    conditions = analyse(SETTINGS, {**rows, "samples": samples}).tables["conditions"]
    report = conditions[conditions["prompts"] == "report"]
    assert (report["n"] == 6).all()
    assert (report["onset"] == 1).all()
    assert_allclose(report["ended"], 1 / 6, rtol=1e-12)


def test_what_a_condition_costs_is_its_loss_minus_that_of_no_patch(finished: Path) -> None:
    conditions = load_result(finished).to_dataframe()
    report = conditions[conditions["prompts"] == "report"]
    (plain,) = report[report["condition"] == "no patch, greedy"]["loss"]
    assert_allclose(report["loss_change"], report["loss"] - plain, atol=1e-12)
    assert (report["loss_change"].abs() > 1e-3).sum() > 3


def test_survival_falls_when_samples_enter_loops_and_never_rises(finished: Path) -> None:
    samples = read_tables(finished)["samples"]
    prompts = sorted(samples[samples["half"] == "report"]["prompt"].unique())
    assert len(prompts) == 6
    onset = samples["prompt"].map(dict(zip(prompts, (3, 7, 30), strict=False)))
    looped = samples.assign(
        looped=onset.notna(), onset=onset.fillna(-1).astype(int), period=5, loop_length=16
    )
    table = survival_table({"samples": looped}, replace(SETTINGS, new_tokens=48))
    expected = [1, 5 / 6, *[4 / 6] * 6, 3 / 6]
    for _, curve in table.groupby("condition"):
        assert curve["token"].tolist() == list(range(0, 33, 4))
        assert_allclose(curve["estimate"], expected, rtol=1e-12)


def test_rows_give_the_same_analysis_again(finished: Path) -> None:
    kept_rows = read_tables(finished)
    rows = {name: table.sample(frac=1, random_state=0) for name, table in kept_rows.items()}
    # Resamples are drawn by the place of a prompt among the others of its condition.
    rows["samples"] = kept_rows["samples"].sort_values(["source", "rule"], kind="stable")
    again = analyse(SETTINGS, rows)
    kept = load_result(finished)
    assert_frame_equal(again.tables["conditions"], kept.to_dataframe())
    for found, expected in zip(again.verdicts, kept.verdicts, strict=True):
        assert found.verdict.outcome == expected.verdict.outcome
        # Sums in another order round otherwise.
        assert_allclose(found.verdict.interval.low, expected.verdict.interval.low, atol=1e-9)


@pytest.mark.parametrize(
    ("question", "table", "measure"),
    [("loops", "samples", "looped"), ("repetition", "samples", "rep-4"),
     ("escape", "rounds", "log_odds")],
)  # fmt: skip
def test_rows_that_are_kept_give_the_same_numbers(
    finished: Path, question: str, table: str, measure: str
) -> None:
    tables = load_result(finished).tables
    rows = tables["rows"][tables["rows"]["table"] == table]
    rows = rows[(rows["measure"] == measure) & (rows["half"] == "report")]
    if table == "samples":
        rows = rows[rows["category"] == "greedy"]
    sums = rows.groupby(["source", "layer", "strength"])[["total", "count"]].sum()
    means = (sums["total"] / sums["count"]).unstack("source")
    # Controls were measured at the chosen cell alone.
    at_cell = means.dropna(subset=["true", "shuffled"])["true"].item()
    contrasts = tables["contrasts"].set_index(["question", "minus"])
    expected = at_cell - means["none"].dropna().item()
    assert contrasts["estimate"][question, "none"] == pytest.approx(expected, abs=1e-9)


def test_rows_that_are_kept_can_choose_again(finished: Path) -> None:
    rows = load_result(finished).tables["rows"]
    other = rows[rows["half"] == "selection"]
    assert set(other["table"]) == {"search", "samples", "rounds", "loss"}
    assert not rows.duplicated([*rows.columns.drop(["total", "count"])]).any()


def with_loops(rows: dict[str, pd.DataFrame], looping: list[str]) -> dict[str, pd.DataFrame]:
    """The rows twice over, but greedy samples end in a loop under these sources and no others."""
    samples = rows["samples"]
    # Six prompts are too few for three questions: the smallest p-value would be 1/32.
    more = samples.assign(prompt=samples["prompt"] + 1000)
    samples = pd.concat([samples, more], ignore_index=True)
    looped = samples["source"].isin(looping)
    samples["looped"] = looped
    for column, value in (("onset", 2), ("period", 5), ("loop_length", 16)):
        samples[column] = np.where(looped, value, -1)
    samples["rep_4"] = np.where(looped, 0.8, 0.1)
    return {**rows, "samples": samples}


@pytest.mark.parametrize(
    ("looping", "expected"),
    [
        (["none", *CONTROLS], ["helps", "helps"]),
        (["true"], ["hurts", "hurts"]),
        # The controls do better; that is no harm. But six prompts that do not differ from no patch
        # do not rule it out.
        (["none", "true"], ["undecided", "undecided"]),
        (["none", "true", *CONTROLS], ["undecided", "undecided"]),
    ],
)
def test_planted_effects_are_found_and_planted_nulls_are_not(
    finished: Path, looping: list[str], expected: list[str]
) -> None:
    found = analyse(SETTINGS, with_loops(read_tables(finished), looping))
    assert [finding.verdict.outcome for finding in found.verdicts[:2]] == expected


def test_a_cell_that_breaks_the_model_is_not_chosen(finished: Path) -> None:
    rows = read_tables(finished)
    search, loss = rows["search"].copy(), rows["loss"].copy()
    strong = (search["strength"] == 0.5) & (search["layer"] == 1)
    search["looped"] = ~strong  # it alone leaves no loops
    ruined = (loss["source"] == "true") & (loss["strength"] == 0.5) & (loss["layer"] == 1)
    fine = ~ruined & (loss["measure"] == "loss")
    loss.loc[fine, "total"] = 2.0 * loss.loc[fine, "count"]
    for per_token, chosen in ((2.05, (1, 0.5)), (2.5, None)):
        loss.loc[ruined & (loss["measure"] == "loss"), "total"] = per_token * loss["count"]
        cell = loops_cell({**rows, "search": search, "loss": loss}, SETTINGS)
        assert ((cell.layer, cell.strength) == (1, 0.5)) == (chosen is not None)
