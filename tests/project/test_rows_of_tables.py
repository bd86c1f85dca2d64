"""The rows of the committed runs give their tables and verdicts, as the page on tables says."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.support.committed_runs import (
    means,
    of_rows,
    read,
    read_json,
    runs_with,
    tagged,
    verdicts,
    where,
)

ARM = ["source", "layer", "strength", "mode", "form"]
ENDS = ["estimate", "low", "high"]
NO_PATCH = ("none", -1, 0.0, "none", "plain")
JOINT = "no patch and every control"

# Float64 sums of n numbers, added in another order, differ by less than n * 2**-53 of their size.
# Means are of up to 2,000 rows and below 400, correlations of 16,000 tokens and below 1.
ROUNDING = 1e-10


def middle_third(points: Iterable[str]) -> list[str]:
    labels = list(dict.fromkeys(points))
    return labels[len(labels) // 3 : 2 * len(labels) // 3]


def ends(verdict: dict[str, Any]) -> list[float]:
    return [verdict["interval"][end] for end in ENDS]


def assert_close(found: Iterable[float], told: Iterable[float]) -> None:
    found, told = list(found), list(told)
    assert found
    assert found == pytest.approx(told, abs=ROUNDING, rel=0)


def assert_joint(joint: pd.DataFrame, single: pd.DataFrame) -> None:
    """The joint row is that of the comparisons of the true token."""
    (row,) = joint.to_dict("records")
    least, end = ("max", "high") if row.get("lower_is_better", True) else ("min", "low")
    expected = single.agg({"estimate": least, end: least, "p_value": "max", "n": "min"})
    assert_close(expected, [row[name] for name in expected.index])


COPYING = {
    "induction": ("induction", []),
    "rare words": ("templates", ["rare"]),
    "common words": ("templates", ["common"]),
    "copyable": ("text", ["copyable"]),
    "other": ("text", ["other"]),
    "surprise": ("text", ["surprise-now"]),
    "repeats": ("repeats", ["repeat"]),
}


@pytest.mark.parametrize("run", runs_with("copying"))
def test_the_rows_of_copying(run: str) -> None:
    rows, contrasts, conditions = (read(run, name) for name in ("rows", "contrasts", "conditions"))
    assert [*contrasts["question"].unique()] == [*COPYING]
    for (question, measure), part in contrasts.groupby(["question", "measure"]):
        table, tags = COPYING[question]
        here = tagged(where(rows, table=table, measure=measure), *tags)
        found = means(here, "half", *ARM)
        told = where(conditions, question=question, measure=measure)
        by_source = dict(zip(told["source"], of_rows(found["report"], told, *ARM), strict=True))
        assert_close(by_source.values(), told["mean"])
        single = part[part["minus"] != JOINT]
        differences = single["source"].map(by_source) - single["minus"].map(by_source)
        assert_close(differences, single["estimate"])
        assert_joint(where(part, minus=JOINT), where(single, source="true"))
        (cell,) = {*part[ARM[1:]].itertuples(index=False, name=None)}
        assert cell == tuple(where(told, source="true")[ARM[1:]].iloc[0])


@pytest.mark.parametrize("run", runs_with("copying"))
def test_the_best_write_of_copying_is_the_best_without_the_temperature(run: str) -> None:
    writes, contrasts = read(run, "writes"), where(read(run, "contrasts"), source="true")
    assert [*writes["question"]] == [*COPYING]
    for (question, measure), joint in writes.groupby(["question", "measure"]):
        part = where(contrasts, question=question, measure=measure)
        assert_joint(joint, part[~part["minus"].isin([JOINT, "temperature"])])


@pytest.mark.parametrize(
    ("table", "half"), [("forms", "report"), ("grid", "selection")], ids=["forms", "grid"]
)
@pytest.mark.parametrize("run", runs_with("copying"))
def test_the_cells_of_copying(run: str, table: str, half: str) -> None:
    rows = where(read(run, "rows"), half=half)
    for (question, measure), cells in read(run, table).groupby(["question", "measure"]):
        material, tags = COPYING[question]
        found = means(tagged(where(rows, table=material, measure=measure), *tags), *ARM)
        true = of_rows(found["true"], cells, *ARM[1:])
        assert_close(true - found[NO_PATCH], cells["estimate"])


@pytest.mark.parametrize("run", runs_with("loops"))
def test_the_rows_of_loops(run: str) -> None:
    rows, contrasts, conditions = (read(run, name) for name in ("rows", "contrasts", "conditions"))
    rows = where(rows, half="report")
    controls = where(conditions, family="controls")
    (cell,) = {*controls[ARM[1:]].itertuples(index=False, name=None)}
    for question, measure in (("loops", "looped"), ("repetition", "rep-4")):
        found = means(where(rows, table="samples", category="greedy", measure=measure), *ARM)
        part = where(contrasts, question=question)
        single = part[part["minus"] != JOINT]
        arms = [NO_PATCH if minus == "none" else (minus, *cell) for minus in single["minus"]]
        assert_close(found[("true", *cell)] - found.loc[arms], single["estimate"])
        assert_joint(where(part, minus=JOINT), single)
    told = where(conditions, prompts="report")
    told = told.assign(category=told["rule"].str.replace(" ", "_"))
    for table, measure, column in (
        ("samples", "looped", "loop_share"),
        ("samples", "rep-4", "rep_4"),
        ("loss", "loss", "loss"),
    ):
        found = means(where(rows, table=table, measure=measure), "category", *ARM)
        assert_close(of_rows(found, told, "category", *ARM), told[column])


LEARNED = {
    "prose": ("text", ["prose"]),
    "Python reference, topics not trained on": ("text", ["python_reference"]),
    "code of Python's standard library": ("text", ["python_code"]),
    "after a surprise": ("text", ["surprise-now"]),
    "random copies": ("induction", []),
    "rare words": ("templates", ["rare"]),
    "free copies": ("copies", []),
    "loops": ("loops", []),
}


@pytest.mark.parametrize("run", runs_with("learned"))
def test_the_rows_of_learned(run: str) -> None:
    rows, contrasts, seeds = (read(run, name) for name in ("rows", "contrasts", "seeds"))
    assert [*contrasts["question"].unique()] == [*LEARNED]
    for (question, measure), part in contrasts.groupby(["question", "measure"]):
        table, tags = LEARNED[question]
        here = tagged(where(rows, table=table, half="report", measure=measure), *tags)
        if table == "text" and question != "after a surprise":
            here = here[here["category"].str.split().str[-1].isin(["copyable", "other"])]
        by_source = means(here, "source")
        assert_close(part["source"].map(by_source), part["mean"])
        single = part[part["minus"] != JOINT]
        differences = single["source"].map(by_source) - single["minus"].map(by_source)
        assert_close(differences, single["estimate"])
        assert_joint(where(part, minus=JOINT), where(single, source="true"))
        by_seed = means(here, "source", "seed")
        for row in where(seeds, question=question).itertuples():
            other = by_seed[row.minus, -1 if row.minus == "none" else row.seed]
            assert_close([by_seed["true", row.seed] - other], [row.estimate])


@pytest.mark.parametrize("run", [*runs_with("copying"), *runs_with("learned"), *runs_with("loops")])
def test_verdicts_are_those_of_joint_rows_or_of_no_patch(run: str) -> None:
    contrasts = read(run, "contrasts")
    by_question = contrasts[contrasts["source"] == "true"].groupby("question", sort=False)
    for verdict, (_, part) in zip(verdicts(run), by_question, strict=True):
        minus = "none" if verdict["against"] == "no patch" else JOINT
        told = where(part, minus=minus).iloc[0]
        assert ends(verdict) == told[ENDS].to_list()
        if minus == JOINT:
            assert verdict["p_value"] == told["p_holm"]


@pytest.mark.parametrize("run", [*runs_with("increment"), *runs_with("reader")])
def test_the_rows_of_trained_patches(run: str) -> None:
    contrasts = read(run, "contrasts")
    alone = "base" if "source" in contrasts else "zero"
    contrasts = contrasts.assign(**({"source": "true", "condition": "as trained"} | {**contrasts}))
    single = contrasts[contrasts["minus"] != JOINT]
    found = means(read(run, "rows"), "scope", "source", "condition")
    one = of_rows(found, single, "scope", "source", "condition")
    minus = of_rows(found.xs("as trained", level="condition"), single, "scope", "minus")
    assert_close(one - minus, single["estimate"])
    by_scope = contrasts.groupby("scope", sort=False)
    for verdict, (_, part) in zip(verdicts(run), by_scope, strict=True):
        references = where(part, source="true", condition="as trained")
        references = references[~references["minus"].isin([JOINT, "none"])]
        joint = where(part, minus=JOINT)
        assert_joint(joint, references)
        judged = where(references, minus=alone) if verdict["against"] == "no patch" else joint
        assert ends(verdict) == judged[ENDS].iloc[0].to_list()


@pytest.mark.parametrize("run", runs_with("scratch", "rows", "contrasts"))
def test_the_rows_of_scratch(run: str) -> None:
    contrasts, network = read(run, "contrasts"), ["blocks", "entry"]
    found = means(read(run, "rows"), *network, "scope", "arm", "condition")
    one = of_rows(found, contrasts, *network, "scope", "arm", "condition")
    as_trained = found.xs("as trained", level="condition")
    minus = of_rows(as_trained, contrasts, *network, "scope", "minus")
    assert_close(one - minus, contrasts["estimate"])
    true = where(contrasts, arm="true", condition="as trained")
    judged = [
        where(of_network, scope=scope)
        for _, of_network in true.groupby(network, sort=False)
        for scope in ("copyable", "all", "greedy texts that end in a loop")
        if scope in {*of_network["scope"]}
    ]
    for verdict, part in zip(verdicts(run), judged, strict=True):
        if verdict["against"] == "no patch":
            assert ends(verdict) == where(part, minus="none")[ENDS].iloc[0].to_list()
        else:
            joint = verdict["interval"]
            assert_joint(pd.DataFrame([joint]).assign(p_value=part["p_value"].max()), part)


@pytest.mark.parametrize("run", runs_with("scratch", "knockouts"))
def test_the_rows_of_knockouts(run: str) -> None:
    told, place = read(run, "knockouts"), ["blocks", "entry", "arm", "scope"]
    found = means(read(run, "knockout_rows"), *place, "path")
    as_trained = of_rows(found.xs("as trained", level="path"), told, *place)
    assert_close(of_rows(found, told, *place, "path") - as_trained, told["estimate"])


@pytest.mark.parametrize("run", runs_with("slopes"))
def test_the_rows_of_slopes(run: str) -> None:
    """Every table but that of single heads, whose rows are summed over kinds."""
    found = means(read(run, "slopes_rows"), "material", "mode", "layer", "source")
    told, place = read(run, "slopes"), ["material", "mode", "layer"]
    news = told[told["minus"] != ""]
    other = of_rows(found, news, *place, "minus")
    assert_close(of_rows(found, news, *place, "source") - other, news["estimate"])
    alone = told[told["minus"] == ""]
    assert_close(of_rows(found, alone, *place, "source"), alone["estimate"])

    found = means(read(run, "patched_rows"), "material", "layer", "source")
    told, place = read(run, "patched"), ["material", "layer"]
    news = told[told["minus"] != "no patch"]
    other = of_rows(found, news, *place, "minus")
    assert_close(of_rows(found, news, *place, "source") - other, news["estimate"])
    alone = told[told["minus"] == "no patch"]
    assert_close(of_rows(found, alone, *place, "source"), alone["estimate"])

    place = ["material", "layer", "strength", "through"]
    found, told = means(read(run, "rescue_rows"), *place, "condition"), read(run, "rescue")
    hidden = told["minus"] == "hidden"
    minus = told.assign(strength=told["strength"].mask(hidden, 0.0))
    minus["through"] = minus["through"].mask(hidden, "")
    other = of_rows(found, minus, *place, "minus")
    assert_close(of_rows(found, told, *place, "condition") - other, told["estimate"])

    place = ["material", "kind", "part"]
    found, told = means(read(run, "heads_rows"), *place, "source"), read(run, "kinds")
    true = of_rows(found.xs("true", level="source"), told, *place)
    assert_close(true - of_rows(found, told, *place, "minus"), told["estimate"])

    found = means(read(run, "ceiling_rows"), "material", "layer", "write").unstack()
    found = found.assign(increment=found["with"] - found["without"]).stack()
    told = read(run, "ceiling")
    assert_close(of_rows(found, told, "material", "layer", "write"), told["estimate"])


@pytest.mark.parametrize("run", runs_with("slopes"))
def test_the_verdicts_on_slopes_are_those_of_the_tables(run: str) -> None:
    weak = read_json(run, "settings")["settings"]["weak"]
    slopes, patched, predictions = (
        read(run, name) for name in ("slopes", "patched", "predictions")
    )
    expected = []
    for material in dict.fromkeys(slopes["material"]):
        promised = where(predictions, material=material, source="true")
        layer = promised.sort_values(["change", "slope"])["layer"].iloc[0]
        run_there = where(patched, material=material, layer=layer, source="true", minus="no patch")
        here = where(slopes, material=material)
        news = here[here["minus"] != ""].groupby(["mode", "layer"])[ENDS].max()
        expected += [
            run_there[ENDS].iloc[0],
            weak * where(here, minus="", source="true")[ENDS].min(),
            weak * news.min(),
        ]
    for table, choice, places, factor in (
        ("rescue", {"condition": "true", "through": "both"}, ["layer", "strength"], 1.0),
        ("kinds", {}, ["kind", "part"], weak),
        ("ceiling", {"write": "increment"}, ["layer"], weak),
    ):
        for _, here in where(read(run, table), **choice).groupby("material", sort=False):
            expected.append(factor * here.groupby(places)[ENDS].max().min())
    for verdict, told in zip(verdicts(run), expected, strict=True):
        assert_close(ends(verdict), told)


@pytest.mark.parametrize("run", runs_with("recall"))
def test_the_rows_of_recall(run: str) -> None:
    place = ["measure", "basis", "part", "point"]
    found = means(read(run, "rows"), *place)
    for table in ("recovered", "read"):
        told = read(run, table)
        assert_close(of_rows(found, told, *place), told["estimate"])
    told = where(told, basis="unembedding", part="less important half")
    inside = told[told["point"].isin(middle_third(told["point"]))]
    shares = inside.groupby("measure")["estimate"].mean()
    assert_close([shares["input"] - shares["stream"]], [ends(verdicts(run)[2])[0]])


@pytest.mark.parametrize("run", runs_with("unlikely"))
def test_the_rows_of_unlikely(run: str) -> None:
    told, place = read(run, "components"), ["statistic", "group", "point"]
    found = read(run, "components_rows").groupby(place)["value"].mean()
    assert_close(of_rows(found, told, *place), told["estimate"])
    told, rows = read(run, "ablation"), read(run, "ablation_rows")
    rows = pd.concat([rows.astype({"layer": str}), rows.assign(layer="mean")])
    found, removed = means(rows, "layer", "taken_out"), rows.groupby(["layer", "taken_out"])
    minus = of_rows(found, told, "layer", "minus")
    assert_close(of_rows(found, told, "layer", "taken_out") - minus, told["estimate"])
    shares = removed["removed"].mean()
    assert_close(of_rows(shares, told, "layer", "taken_out"), told["removed"])


@pytest.mark.parametrize("run", runs_with("last_word"))
def test_the_rows_of_last_word(run: str) -> None:
    along, told = read(run, "along_rows"), read(run, "influence")
    item, asked = ["word", "topic", "phrasing"], "with the word"
    for measure in ("log_prob", "log_rank"):
        values = along.pivot_table(
            index=["sentence", "label", "part", *item], columns="request", values=measure
        )
        for minus in ("with another word", "without a word"):
            difference = values[asked] - values[minus]
            parts = difference.groupby(["sentence", "label", "part"]).mean()
            whole = parts.groupby(["sentence", "label"]).mean()
            here = where(told, measure=measure, minus=minus)
            is_whole = here["part"] == "whole sentence"
            assert_close(
                of_rows(whole, here[is_whole], "sentence", "point"), here["estimate"][is_whole]
            )
            each = here[~is_whole]
            each = each.assign(
                part=each["part"].str.extract(r"(\d+)", expand=False).astype(int) - 1
            )
            assert_close(of_rows(parts, each, "sentence", "point", "part"), each["estimate"])
    told_sources = read(run, "sources")
    found = read(run, "sources_rows").groupby(["where", "layer"])["lost"].mean()
    assert_close(of_rows(found, told_sources, "where", "layer"), told_sources["estimate"])
    whole = where(
        told,
        sentence="the model's own sentence",
        minus="with another word",
        measure="log_prob",
        part="whole sentence",
    )
    middle = whole[whole["point"].isin(middle_third(whole["point"]))]["estimate"].mean()
    output = where(whole, point="final_post")["estimate"].item()
    share = read(run, "sentences").groupby("request")["ends"].mean()
    ending = share[asked] - share["without a word"]
    assert_close([middle, output, ending], [ends(verdict)[0] for verdict in verdicts(run)])


def partial_correlation(y: pd.Series, x: pd.Series, given: pd.Series) -> float:
    """Spearman's."""
    ranks = pd.concat([y, x, given], axis=1).dropna().rank().to_numpy()
    design = np.column_stack([np.ones(len(ranks)), ranks[:, 2]])
    left = ranks[:, :2] - design @ np.linalg.lstsq(design, ranks[:, :2], rcond=None)[0]
    return float(np.corrcoef(left.T)[0, 1])


@pytest.mark.parametrize("run", runs_with("preservation"))
def test_the_rows_of_preservation(run: str) -> None:
    tokens, templates = read(run, "token_rows"), read(run, "template_rows")
    rarity, surprise = tokens["rarity"], tokens["surprise"]
    word = templates["group"] + " " + templates["said"]
    sentence = templates["group"] + " " + templates["frame"] + " " + templates["distance"]
    left = templates[["rank", "copy_log_prob"]]
    for _ in range(100):
        for shared in (word, sentence):
            left = left - left.groupby(shared).transform("mean")
    # The near and the far version of a sentence tie, and rounding may not tell them apart.
    left = left.round(9)
    found = [
        partial_correlation(tokens["rank"], rarity, surprise),
        partial_correlation(tokens["log_prob"], rarity, surprise),
        partial_correlation(tokens["log_prob"], surprise, rarity),
        stats.spearmanr(left["rank"], left["copy_log_prob"]).statistic,
    ]
    assert_close(found, [ends(verdict)[0] for verdict in verdicts(run)])


@pytest.mark.parametrize("run", runs_with("likeliest"))
def test_the_ways_to_likely_sequences(run: str) -> None:
    ways, told = read(run, "ways"), read(run, "differences")
    nats = ways.pivot_table(index="way", columns="length", values="estimate")
    nats.columns = nats.columns.astype(str)
    nats["all"] = nats.mean(axis=1)
    found = nats.stack()
    minus = of_rows(found, told, "minus", "length")
    assert_close(of_rows(found, told, "way", "length") - minus, told["estimate"])
    width = read_json(run, "settings")["settings"]["width"]
    longest = where(ways, length=ways["length"].max()).set_index("way")
    more = longest.loc["likeliest found"] - longest.loc["one sample"]
    beam, swaps = f"beam search, {width}", f"beam search, {width // 2}, then swaps"
    over_lengths = nats["all"] - nats.loc[beam, "all"]
    expected = [over_lengths["gradient ascent"], over_lengths[swaps]]
    expected += [more["loop_share"], more["rep_4"]]
    assert_close(expected, [ends(verdict)[0] for verdict in verdicts(run)])


@pytest.mark.parametrize("run", runs_with("upbringing"))
def test_the_layers_of_upbringing(run: str) -> None:
    place = ["measure", "scope", "point"]
    layers, contrasts, recall = (read(run, name) for name in ("layers", "contrasts", "recall"))
    found = layers.set_index([*place, "arm"])["mean"]
    minus = of_rows(found, contrasts, *place, "minus")
    assert_close(of_rows(found, contrasts, *place, "arm") - minus, contrasts["estimate"])
    recovered = where(layers, measure="recovered", scope="all")
    by_point = recovered.set_index(["point", "arm"])["mean"]
    minus = of_rows(by_point, recall, "minus", "arm")
    assert_close(of_rows(by_point, recall, "point", "arm") - minus, recall["estimate"])
    labels = list(dict.fromkeys(where(contrasts, measure="kl")["point"]))
    middle, output = labels[len(labels) // 2], "final_post"
    expected = [
        ("kl", "all", middle, "strong decay", "no decay"),
        ("kl", "all", middle, "plain", "untied"),
        *(
            ("loss", scope, output, arm, "plain")
            for arm in ("myopic", "myopic, stopped")
            for scope in ("all", "copyable")
        ),
        *(
            ("recovered", "all", point, arm, "plain")
            for arm in ("myopic", "myopic, stopped")
            for point in (middle, output)
        ),
    ]
    judged = pd.DataFrame(expected, columns=[*place, "arm", "minus"])
    minus = of_rows(found, judged, *place, "minus")
    difference = of_rows(found, judged, *place, "arm") - minus
    assert_close(difference, [ends(verdict)[0] for verdict in verdicts(run)])
