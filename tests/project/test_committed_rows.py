"""The committed rows give the committed verdicts, by pandas and scipy alone."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

RESULTS = Path(__file__).parents[2] / "results"
ARM = ["source", "layer", "strength", "mode", "form"]
NO_PATCH = ("none", -1, 0.0, "none", "plain")


def means(rows: pd.DataFrame) -> pd.Series:
    sums = rows.groupby(ARM)[["total", "count"]].sum()
    return sums["total"] / sums["count"]


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_the_verdict_on_another_round_is_that_of_the_rows(model: str) -> None:
    run = RESULTS / model / "loops"
    budget = json.loads((run / "settings.json").read_text())["settings"]["loss_budget"]
    verdict = json.loads((run / "result.json").read_text())["verdicts"][2]["verdict"]
    rows = pd.read_parquet(run / "tables" / "rows.parquet")

    selection = rows[rows["half"] == "selection"]
    is_plain = (selection["table"] == "loss") & (selection["category"] == "greedy")
    losses, odds = means(selection[is_plain]), means(selection[selection["table"] == "rounds"])
    affordable = [arm for arm in losses.index if losses[arm] <= losses[NO_PATCH] + budget]
    true = min((arm for arm in affordable if arm[0] == "true"), key=odds.get)
    controls = [arm for arm in affordable if arm[1:] == true[1:] and arm != true]

    report = rows[(rows["half"] == "report") & (rows["table"] == "rounds")]
    passages = report.pivot_table(index="cluster", columns=ARM, values="total")
    references = [NO_PATCH, *controls]
    found = []
    for reference in references:
        difference = ((passages[true] - passages[reference]).to_numpy(),)
        single = stats.bootstrap(difference, np.mean, rng=np.random.default_rng(0))
        wider = stats.bootstrap(
            difference,
            np.mean,
            n_resamples=0,
            bootstrap_result=single,
            confidence_level=1 - 0.05 / len(references),
        )
        p_value = stats.permutation_test(
            difference, np.sum, permutation_type="samples", rng=np.random.default_rng(0)
        ).pvalue
        # The lower the better: the lead is over the best reference, whichever that is.
        ends = wider.confidence_interval.low, single.confidence_interval.high
        found.append((difference[0].mean(), *ends, p_value))
    estimate, low, high, p_value = np.max(found, axis=0)

    interval = verdict["interval"]
    assert (estimate, low, high) == pytest.approx(
        (interval["estimate"], interval["low"], interval["high"]), abs=1e-9
    )
    assert len(passages) == interval["n"]
    contrasts = pd.read_parquet(run / "tables" / "contrasts.parquet")
    compared = contrasts[contrasts["question"] == "escape"].set_index("minus")
    assert {"no patch and every control", *(arm[0] for arm in references)} == {*compared.index}
    assert p_value == pytest.approx(compared["p_value"]["no patch and every control"])


Judged = tuple[float, float, float, float]


def judged_by(
    totals: np.ndarray, counts: np.ndarray | None = None, n_resamples: int = 9999
) -> Judged:
    """Mean, ends and p-value; documents are resampled, and each is one if nothing is counted."""
    counts = np.ones(len(totals)) if counts is None else counts

    def mean(t: np.ndarray, c: np.ndarray, axis: int = -1) -> np.ndarray:
        return t.sum(axis) / c.sum(axis)

    found = stats.bootstrap(
        (totals, counts),
        mean,
        paired=True,
        n_resamples=n_resamples,
        rng=np.random.default_rng(0),
    )
    p_value = stats.permutation_test(
        (totals,),
        np.sum,
        permutation_type="samples",
        n_resamples=n_resamples,
        rng=np.random.default_rng(0),
    ).pvalue
    return float(mean(totals, counts)), *found.confidence_interval, float(p_value)


def holm(p_values: list[float]) -> list[float]:
    """Each p-value times how many are not below it, and never below one that came before."""
    order = np.argsort(p_values)
    times = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(np.array(p_values)[order] * times))
    return corrected[np.argsort(order)].tolist()


def assert_verdicts(run: Path, found: list[Judged]) -> None:
    """The verdicts of a run are `found`: means, ends and p-values before correction."""
    verdicts = [
        each["verdict"] for each in json.loads((run / "result.json").read_text())["verdicts"]
    ]
    for verdict, numbers, p_value in zip(
        verdicts, found, holm([p_value for *_, p_value in found]), strict=True
    ):
        interval = verdict["interval"]
        told = [interval[end] for end in ("estimate", "low", "high")]
        assert told == pytest.approx(numbers[:3], abs=1e-9)
        assert verdict["p_value"] == pytest.approx(p_value)


def by_document(rows: pd.DataFrame, columns: list[str], values: str) -> pd.DataFrame:
    """A row for each document, in the order in which they were read."""
    table = rows.pivot_table(index="document", columns=columns, values=values)
    return table.loc[list(dict.fromkeys(rows["document"]))]


def middle_third(points: list[str]) -> list[str]:
    return points[len(points) // 3 : 2 * len(points) // 3]


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_the_verdicts_on_unlikely_tokens_are_those_of_the_rows(model: str) -> None:
    run = RESULTS / model / "unlikely"
    components = pd.read_parquet(run / "tables" / "components_rows.parquet")
    points = list(dict.fromkeys(components["point"]))
    inside = components[components["point"].isin(middle_third(points))]
    means = by_document(inside, ["statistic", "group"], "value")
    found = []
    for statistic in ("size", "left at the output"):
        tokens, random = (
            means[statistic, f"unlikely {name}"] for name in ("tokens", "random directions")
        )
        found.append(judged_by((tokens - random).to_numpy()))
    ablation = pd.read_parquet(run / "tables" / "ablation_rows.parquet")
    losses = by_document(ablation, ["taken_out"], "total")
    counts = by_document(ablation, ["taken_out"], "count")["unlikely tokens"]
    more = losses["unlikely tokens"] - losses["unlikely random directions"]
    found.append(judged_by(more.to_numpy(), counts.to_numpy()))
    assert_verdicts(run, found)


@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "gemma-3-270m"])
def test_the_verdicts_on_recall_are_those_of_the_rows(model: str) -> None:
    run = RESULTS / model / "recall"
    rows = pd.read_parquet(run / "tables" / "rows.parquet")
    recovered = rows[(rows["measure"] == "recovered") & (rows["part"] == "all")]
    points = list(dict.fromkeys(recovered["point"]))
    hits = by_document(recovered, ["point"], "total")[points].to_numpy()
    counts = by_document(recovered, ["point"], "count")[points[0]].to_numpy()
    chosen = hits[::2].sum(axis=0)
    least = int(chosen[:-1].argmin())
    rises = {
        (earlier, later): chosen[later] - chosen[earlier]
        for earlier in range(len(points))
        for later in range(earlier + 1, len(points))
    }
    stretches = [(least, len(points) - 1), max(rises, key=lambda stretch: rises[stretch])]
    found = [
        judged_by(hits[1::2, later] - hits[1::2, earlier], counts[1::2])
        for earlier, later in stretches
    ]
    less = rows[(rows["basis"] == "unembedding") & (rows["part"] == "less important half")]
    inside = less[less["point"].isin(middle_third(points))]
    shares = by_document(inside, ["measure"], "total")
    # A document's share of the input compares it with all others, so it counts once more there.
    own = shares["input"]
    twice = own.mean() + 2 * (own - own.mean())
    found.append(judged_by((twice - shares["stream"]).to_numpy()))
    assert_verdicts(run, found)


def cell_means(run: Path, table: str, places: list[str]) -> pd.Series:
    """Means over all predictions, by material and place."""
    rows = pd.read_parquet(run / "tables" / f"{table}_rows.parquet")
    sums = rows.groupby(["material", *places])[["total", "count"]].sum()
    return sums["total"] / sums["count"]


def lowest_lead(means: pd.Series, of: str, minus: list[str]) -> float:
    """Of all places, where the last level is `of`, minus the largest of others, is lowest."""
    by_condition = means.unstack()
    leads = by_condition[of] - by_condition[minus].min(axis=1)
    return float(leads.min())


@pytest.mark.parametrize(
    "folder", ["smollm2-135m-instruct/slopes", "gemma-3-270m/slopes", "slopes-centred"]
)
def test_the_verdicts_on_slopes_are_those_of_the_rows(folder: str) -> None:
    """The patched runs with ends and p-values; of grids, which hold together, the estimates."""
    run = RESULTS / folder
    settings = json.loads((run / "settings.json").read_text())["settings"]
    findings = json.loads((run / "result.json").read_text())["verdicts"]
    weak = settings["weak"]
    n_resamples = settings["resampling"]["n_resamples"]
    slopes = cell_means(run, "slopes", ["mode", "layer", "source"])
    materials = list(dict.fromkeys(pd.read_parquet(run / "tables" / "slopes.parquet")["material"]))
    patched = pd.read_parquet(run / "tables" / "patched_rows.parquet")
    contrasts = pd.read_parquet(run / "tables" / "patched.parquet")
    expected = []
    for material, finding in zip(materials, findings[::3], strict=False):
        (layer,) = re.findall(r": layer (\d+),", finding["method"])
        here = patched[
            (patched["material"] == material)
            & (patched["layer"] == int(layer))
            & (patched["source"] == "true")
        ]
        sums = here.groupby("cluster")[["total", "count"]].sum()
        estimate, *ends, p_value = judged_by(
            sums["total"].to_numpy(), sums["count"].to_numpy(np.float64), n_resamples
        )
        interval = finding["verdict"]["interval"]
        assert ends == pytest.approx([interval["low"], interval["high"]], abs=1e-9)
        told = contrasts[
            (contrasts["material"] == material)
            & (contrasts["layer"] == int(layer))
            & (contrasts["source"] == "true")
            & (contrasts["minus"] == "no patch")
        ]
        assert told["p_value"].item() == pytest.approx(p_value)
        controls = [source for source in settings["sources"] if source != "true"]
        expected += [
            estimate,
            weak * float(slopes[material].xs("true", level="source").min()),
            weak * lowest_lead(slopes[material], "true", controls),
        ]
    rescued = cell_means(run, "rescue", ["layer", "strength", "through", "condition"])
    of_kinds = cell_means(run, "heads", ["kind", "part", "source"])
    of_writes = cell_means(run, "ceiling", ["layer", "write"])
    for material in dict.fromkeys(rescued.index.get_level_values("material")):
        here = rescued[material].unstack()
        both = here.xs("both", level="through")
        hidden = here["hidden"].xs("", level="through").groupby("layer").first()
        others = both[settings["rescue_sources"][1:]].min(axis=1)
        best = np.minimum(others, hidden.reindex(both.index, level="layer"))
        expected.append(float((both["true"] - best).min()))
    for material in dict.fromkeys(of_kinds.index.get_level_values("material")):
        controls = settings["head_sources"][1:]
        expected.append(weak * lowest_lead(of_kinds[material], "true", controls))
    for material in dict.fromkeys(of_writes.index.get_level_values("material")):
        expected.append(weak * lowest_lead(of_writes[material], "with", ["without"]))
    told = [each["verdict"]["interval"]["estimate"] for each in findings]
    assert sorted(told) == pytest.approx(sorted(expected), abs=1e-9)


@pytest.mark.parametrize(
    ("run", "pages"),
    [
        ("smollm2-135m-instruct/copying", ["docs/findings/pretrained.md"]),
        ("copying-late", ["docs/findings/pretrained.md", "results/copying-late/README.md"]),
    ],
)
def test_the_lead_over_the_last_residual_may_be_chance_by_package(run, pages) -> None:
    """Repeats of surprising tokens, where the packages of the docstrings are resampled."""
    rows = pd.read_parquet(RESULTS / run / "tables/rows.parquet")
    rows = rows[(rows["table"] == "repeats") & (rows["half"] == "report")]
    is_repeat = rows["category"].str.startswith("docstrings repeat ")
    rows = rows[is_repeat & (rows["form"] == "surprised output") & (rows["measure"] == "loss")]
    package = rows["cluster"].str.extract(r"docstrings: (\w+)", expand=False)
    sums = {
        source: rows[rows["source"] == source].groupby(package)[["total", "count"]].sum()
        for source in ("true", "back_patch")
    }
    difference = sums["true"]["total"] - sums["back_patch"]["total"]
    estimate, low, high, p_value = judged_by(
        difference.to_numpy(), sums["true"]["count"].to_numpy()
    )
    said = f"chance ({estimate:.3f} [{low:.3f}, {high:+.3f}], p = {p_value:.2f}"
    for page in pages:
        text = (RESULTS.parent / page).read_text().replace("−", "-")
        assert said in " ".join(text.split())
