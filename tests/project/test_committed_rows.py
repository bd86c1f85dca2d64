"""The committed rows of loops give the committed verdict, by pandas and scipy alone."""

import json
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
