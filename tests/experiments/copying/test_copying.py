"""The copying experiment from start to end: planted effects and nulls."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from lens_interventions.experiments import Result, copying
from lens_interventions.experiments.copying.bounds import bounds
from lens_interventions.intervention.site import PatchSite
from lens_interventions.intervention.sources import SOURCES
from lens_interventions.measures.intervals import holm
from lens_interventions.measures.verdicts import JOINT
from tests.support.planted import faint_bridge, planted_bridge
from tests.support.small_copying import SETTINGS

pytestmark = [pytest.mark.usefixtures("few_templates"), pytest.mark.long]


# In float32 they take half the time, and no number here needs more.
PLANTED, FAINT = (partial(made, torch.float32) for made in (planted_bridge, faint_bridge))

CONTROLS = {
    *("random", "shuffled", "current", "guess", "direction"),
    *("previous", "average", "zero", "temperature", "back_patch"),
}


def outcomes(result: Result) -> dict[str, str]:
    questions = result.to_dataframe()["question"].unique()
    return {q: f.verdict.outcome for q, f in zip(questions, result.verdicts, strict=True)}


@pytest.fixture(scope="module")
def planted(few_templates: None) -> Result:
    return copying(PLANTED, settings=SETTINGS)


def test_the_planted_defect_is_found(planted: Result) -> None:
    found = outcomes(planted)
    assert found["induction"] == found["copyable"] == "helps"
    contrasts = planted.to_dataframe()
    headline = contrasts[(contrasts["measure"] == "loss") & (contrasts["minus"] == JOINT)]
    induction = headline[headline["question"] == "induction"].iloc[0]
    # Block 1 copies beliefs; below it there are none to repair.
    assert induction["layer"] == 1
    # By hand: beliefs are wrong, so a copied one costs some 6 nats and the truth next to nothing;
    # a patch of 0.3 goes more than half of the way.
    assert induction["estimate"] < -2
    assert induction["p_holm"] < 0.05


def test_the_best_write_is_the_best_of_the_references_without_the_temperature(
    planted: Result,
) -> None:
    table, contrasts = planted.tables["writes"], planted.to_dataframe()
    for row in table.itertuples():
        single = contrasts[
            (contrasts["question"] == row.question)
            & (contrasts["measure"] == row.measure)
            & (contrasts["source"] == "true")
            & ~contrasts["minus"].isin([JOINT, "temperature"])
        ]
        nearest = "max" if row.lower_is_better else "min"
        assert row.estimate == single["estimate"].agg(nearest)
        assert row.p_value == single["p_value"].max()
    assert table["p_holm"].to_list() == holm(table["p_value"].to_numpy()).tolist()
    assert len(single) == len(CONTROLS)  # no patch, and all controls but the temperature


def test_the_effect_over_depth_is_where_it_was_planted(planted: Result) -> None:
    grid = planted.tables["grid"]
    induction = grid[(grid["question"] == "induction") & (grid["measure"] == "loss")]
    by_layer = induction.groupby("layer")["estimate"].min()
    assert by_layer[1] < -2 < by_layer[0]
    assert (induction[induction["layer"] == 1]["p_holm"] < 0.05).all()
    forms = {"plain": 2, "surprised output": 4, "recent tokens": 2}
    assert induction.value_counts("form").to_dict() == forms


def test_the_same_pipeline_finds_nothing_with_the_source_swapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def another_random_token(site: PatchSite) -> Tensor:
        return (site.draw_integers(len(site.embedding.weight)) + 17) % len(site.embedding.weight)

    swapped = replace(SOURCES["true"], function=another_random_token)
    monkeypatch.setitem(SOURCES, "true", swapped)
    result = copying(PLANTED, settings=SETTINGS)
    found = outcomes(result)
    assert found["induction"] == "no effect"
    assert "helps" not in found.values()


def test_a_model_that_hardly_copies_is_hardly_helped() -> None:
    result = copying(FAINT, settings=replace(SETTINGS, layers=(1,)))
    # Guessing at random it is never surprised by 6 nats: about that there is nothing to say.
    found = outcomes(result)
    for place, question in ((-2, "surprise"), (-1, "repeats")):
        assert found.pop(question) == "undecided"
        assert result.verdicts[place].verdict.smallest_visible is None
        assert result.verdicts[place].verdict.interval.n == 0
    # Two words in two frames decide little.
    assert {found.pop("rare words"), found.pop("common words")} <= {"no effect", "undecided"}
    assert set(found.values()) <= {"no effect", "helps a little"}
    assert result.tables["grid"]["estimate"].abs().max() < 0.05


def test_every_source_is_reported_for_every_question(planted: Result) -> None:
    contrasts = planted.to_dataframe()
    for question, rows in contrasts.groupby("question"):
        main = rows[rows["measure"] == rows["measure"].iloc[0]]
        # Nothing is no patch, where it is added.
        expected = CONTROLS - ({"zero"} if main["mode"].iloc[0] == "add" else set())
        assert set(main[main["minus"] == "none"]["source"]) == {"true", *expected}, question
        against = main[main["minus"] != "none"]
        assert set(against["source"]) == {"true"}
        assert set(against["minus"]) == {JOINT, *expected}
        # No closer to the best reference than to any: a loss by its largest difference.
        single = main[(main["source"] == "true") & (main["minus"] != JOINT)]
        joint = against.set_index("minus").loc[JOINT]
        worst = "max" if joint["lower_is_better"] else "min"
        assert joint["estimate"] == single["estimate"].agg(worst)
        assert joint["p_value"] == single["p_value"].max()
    conditions = planted.tables["conditions"]
    assert set(conditions["source"]) == {"none", "true", *CONTROLS}
    # True minus no patch is the difference of the two means.
    loss = conditions[(conditions["question"] == "induction") & (conditions["measure"] == "loss")]
    means = loss.set_index("source")["mean"]
    row = contrasts.query("question == 'induction' and measure == 'loss' and source == 'true'")
    plain = row[row["minus"] == "none"]["estimate"].item()
    assert plain == pytest.approx(means["true"] - means["none"], abs=1e-9)


def test_both_kinds_of_word_have_a_verdict_of_their_own(planted: Result) -> None:
    conditions = planted.tables["conditions"].query("measure == 'log_prob' and source == 'true'")
    counts = conditions.set_index("question")["count"]
    assert counts["rare words"] + counts["common words"] == 8
    findings = {finding.question: finding for finding in planted.verdicts}
    for kind in ("rare", "common"):
        method = findings[
            f"Does it help to say a {kind} word again where the sentence calls for it?"
        ]
        assert f"{counts[f'{kind} words']} predictions" in method.method


def test_no_cell_of_the_grid_gains_more_than_the_bound(planted: Result) -> None:
    bounds = planted.tables["bounds"].set_index("question")
    grid = planted.tables["grid"]
    assert list(bounds.index) == list(grid["question"].unique())
    induction = grid[(grid["question"] == "induction") & (grid["measure"] == "loss")]
    best = induction.loc[induction["estimate"].idxmin()]
    row = bounds.loc["induction"]
    assert row["gain"] == pytest.approx(-best["estimate"], abs=1e-9)
    assert (row["layer"], row["mode"]) == (best["layer"], best["mode"])
    # Simultaneous over four cells, so above each cell's own end.
    text = grid[(grid["question"] == "copyable") & (grid["measure"] == "loss")]
    assert bounds.loc["copyable", "bound"] > -text["low"].min()
    # One word to choose by says nothing of others.
    assert math.isnan(bounds.loc["rare words", "bound"])
    assert "gains more than" in planted.verdicts[0].method


def test_the_bound_of_a_log_probability_is_of_how_much_it_rises(planted: Result) -> None:
    kept = planted.tables["rows"]
    # A second word, which does as the first, so that there is something to resample.
    other = kept[kept["table"] == "templates"].assign(cluster=lambda rows: rows["cluster"] + "s")
    rows = dict(iter(pd.concat([kept, other]).groupby("table")))
    found = bounds(SETTINGS, rows).set_index("question").loc["rare words"]
    words = rows["templates"].query("half == 'selection' and measure == 'log_prob'")
    words = words[words["category"].str.split().map(lambda tags: "rare" in tags)]
    columns = ["source", "layer", "strength", "mode", "form"]
    sums = words.groupby(columns)[["total", "count"]].sum()
    means = sums["total"] / sums["count"]
    rises = means["true"] - means["none"].item()
    assert found["gain"] == pytest.approx(rises.max(), abs=1e-9)
    # With the other sign it would be another number.
    assert rises.max() != pytest.approx(-rises.min(), abs=0.1)


def test_a_question_says_what_it_could_have_seen(planted: Result) -> None:
    verdict = planted.verdicts[0].verdict
    assert 0 < verdict.smallest_visible < 2
    said = f"had 80% power for a lead of {verdict.smallest_visible:.2g} nats"
    assert said in planted.verdicts[0].method


def test_holm_over_the_questions_enters_the_verdicts(planted: Result) -> None:
    contrasts = planted.to_dataframe()
    joint = contrasts[contrasts["minus"] == JOINT].groupby("question", sort=False).head(1)
    assert joint["p_holm"].tolist() == holm(joint["p_value"].to_numpy()).tolist()
    for finding, p_holm in zip(planted.verdicts, joint["p_holm"], strict=True):
        if finding.verdict.against == JOINT:
            assert finding.verdict.p_value == p_holm


def test_categories_divide_the_text(planted: Result) -> None:
    categories = planted.tables["categories"]
    plain = categories[(categories["source"] == "true") & (categories["minus"] == "none")]
    counts = plain.groupby("division")["count"].sum()
    # Every prediction but the first of each document has a token before it.
    assert counts["surprisal of the token before"] == counts["last surprise"]
    assert counts["copyable and other tokens"] == counts["last surprise"] + 10
    words = plain[plain["division"] == "kind of word"].set_index("category")["count"]
    assert words["common"] + words["rare"] == 8
    high = plain[plain["category"].isin(["6 to 8", "8 and more"])]["count"].sum()
    assert high == plain[plain["category"] == "right after a surprise"]["count"].item() > 0


def test_each_form_is_reported_at_its_best_cell(planted: Result) -> None:
    forms = planted.tables["forms"].set_index(["question", "form"])
    grid = planted.tables["grid"].query("measure == 'loss'")
    for form in ("plain", "surprised output", "recent tokens"):
        best = grid.query("question == 'induction' and form == @form").sort_values("estimate")
        row = forms.loc[("induction", form)]
        assert (row["layer"], row["mode"]) == (best["layer"].iloc[0], best["mode"].iloc[0])
    contrasts = planted.to_dataframe().query(
        "question == 'induction' and measure == 'loss' and source == 'true' and minus == 'none'"
    )
    assert (
        contrasts["estimate"].item()
        == forms.loc[("induction", contrasts["form"].item()), "estimate"]
    )


def test_repeats_of_surprising_tokens_are_patched_where_these_stood(planted: Result) -> None:
    contrasts = planted.to_dataframe().query("question == 'repeats'")
    assert set(contrasts["form"]) == {"surprised output"}
    repeats = planted.tables["repeats"].set_index("repeats")
    assert 0 < repeats.loc["repeat", "of_tokens"] < 1
    assert 0 < repeats.loc["repeat", "low"] < repeats.loc["repeat", "of_loss"] < 1
    by_distance = repeats.drop("repeat")
    assert by_distance["tokens"].sum() == repeats.loc["repeat", "tokens"]
    assert by_distance["of_loss"].sum() == pytest.approx(repeats.loc["repeat", "of_loss"])


def test_rows_that_are_kept_give_the_same_numbers(planted: Result) -> None:
    kept = planted.tables["rows"].query("table == 'text' and half == 'report'")
    kept = kept[kept["category"].str.endswith(" copyable")]
    row = planted.to_dataframe().query(
        "question == 'copyable' and source == 'true' and minus == 'current'"
    )
    cell = row.iloc[0][["layer", "strength", "mode", "form"]]
    sums = kept[(kept[cell.index] == cell).all(axis=1)].groupby("source")[["total", "count"]].sum()
    means = sums["total"] / sums["count"]
    assert row["estimate"].item() == pytest.approx(means["true"] - means["current"], abs=1e-9)


def test_the_lens_finds_the_word_no_earlier_than_it_is_copied(planted: Result) -> None:
    first = planted.tables["lens_first"]
    assert set(first["source"]) == {"true"}
    assert set(first["minus"]) - {"none"} <= CONTROLS
    everything = first[(first["words"] == "all") & (first["minus"] == "none")].iloc[0]
    # Points 0 and 1 hold the current token and the belief; copies are made in block 1.
    assert 2 <= everything["mean"] <= everything["unpatched"] <= 3
    lens = planted.tables["lens"]
    shares = lens[(lens["words"] == "all") & (lens["role"] == "true")].set_index("point")["share"]
    assert shares.index.tolist() == [0, 1, 2]
    assert shares[0] == shares[1] == 0


def test_figures_have_all_data(planted: Result) -> None:
    figures = planted.figures()
    assert set(figures) >= {"sources", "surprisal", "copyable", "words", "depth", "lens"}
    assert len(figures["sources"].data) == len(figures["forms"].data) == 7
    assert all(finding.figure in figures for finding in planted.verdicts)


def test_one_document_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the quick brown fox")
    settings = replace(SETTINGS, texts=(str(tmp_path / "one.txt"),))
    with pytest.raises(ValueError, match="nothing for text on the report half"):
        copying(PLANTED, settings=settings)


def test_words_are_resampled_with_their_frames(planted: Result) -> None:
    row = planted.to_dataframe().query(
        "question == 'rare words' and measure == 'log_prob' and source == 'true' "
        "and minus == 'none'"
    )
    # Two words in two frames: both are resampled, and n is the smaller number.
    assert row["n"].item() == 2
    # By hand: a letter that was believed wrong costs some 6 nats, and a word has several.
    assert row["low"].item() < row["estimate"].item()
    assert row["estimate"].item() > 6
