"""The preservation experiment from start to end, and verdicts on planted data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy import stats

from lens_interventions.experiments import load_result
from lens_interventions.experiments.preservation import PreservationSettings, preservation
from lens_interventions.experiments.preservation.analysis import analyse
from lens_interventions.experiments.preservation.token_rows import NET
from tests.support.small_preservation import FEW, SMALL, long_bridge
from tests.support.tiny import tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients", "few_templates")


def planted(effect: float) -> dict[str, pd.DataFrame]:
    """Tables of 40 documents in which every nat of rarity moves the log-rank by -`effect`."""
    rng = np.random.default_rng(5)
    labels = ["0_pre", "1_pre", "2_pre", "3_pre", "final_post"]
    tokens = rng.geometric(0.08, size=(40, 50)).clip(max=111)
    counts = pd.DataFrame(
        [
            {"document": f"d{d}", "token": t, "count": int((row == t).sum()), "d_vocab": 112}
            for d, row in enumerate(tokens)
            for t in np.unique(row)
        ]
    )
    rarity = np.log(tokens.size) - np.log(np.bincount(tokens.ravel(), minlength=112) + 0.5)
    document, position = np.indices(tokens.shape)
    token, surprisal = tokens.ravel(), rng.exponential(3, tokens.size)
    parts = []
    for point, label in enumerate(labels):
        noise = rng.normal(0, 1, tokens.size)
        kept = effect * rarity[token] + noise
        parts.append(
            pd.DataFrame(
                {
                    "document": [f"d{d}" for d in document.ravel()],
                    "position": position.ravel(),
                    "token": token,
                    "surprisal": surprisal,
                    "point": point,
                    "label": label,
                    "rank": np.exp(9 - kept).round(),
                    "log_prob": -9 + kept,
                    "elsewhere_rank": np.exp(9.0),
                    "elsewhere_log_prob": -9.0,
                }
            )
        )
    words = [f"w{n}" for n in range(24)]
    items = pd.DataFrame(
        [
            {
                "item": n * 8 + f,
                "group": "g",
                "frame": f"f{f}",
                "said": word,
                "frequency": "rare",
                "distance": "near",
                "pieces": 1,
                "copy_log_prob": n / 3 + f + quality,
                "point": point,
                "label": label,
                "log_rank": n - f - effect * quality,
                "log_prob": 0.0,
            }
            for n, word in enumerate(words)
            for f in range(8)
            for quality in [float(rng.normal())]
            for point, label in enumerate(labels)
        ]
    )
    if effect == 0:
        items["log_rank"] = items["log_rank"] + rng.normal(size=192).repeat(len(labels))
    return {"tokens": pd.concat(parts, ignore_index=True), "counts": counts, "templates": items}


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (0.5, ["helps", "helps", "no effect", "helps"]),
        (0.0, ["no effect", "no effect", "no effect", "undecided"]),
        (-0.5, ["hurts", "hurts", "no effect", "hurts"]),
    ],
)
def test_planted_effects_are_found_and_planted_nulls_are_not(
    effect: float, expected: list[str]
) -> None:
    # With few kinds of token, half an interval of a null is as wide as 0.1.
    settings = replace(SMALL, resampling=FEW, smallest_correlation=0.15)
    found = analyse(settings, planted(effect))
    assert [finding.verdict.outcome for finding in found.verdicts] == expected


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    result = preservation(long_bridge, settings=SMALL, out=tmp_path)
    table = result.to_dataframe()
    assert table["point"].unique().tolist() == ["0_pre", "1_pre", "2_pre", "final_post"]
    assert table["n"].max() == 4
    assert len(result.verdicts) == 4
    loaded = load_result(tmp_path)
    assert_frame_equal(loaded.to_dataframe(), table)
    figures = loaded.figures()
    assert {finding.figure for finding in result.verdicts} <= set(figures)
    buttons = figures["correlation"].layout.updatemenus[0].buttons
    assert [button.label for button in buttons][-1] == f"preserved: {NET}"
    shown = [trace.visible for trace in figures["correlation"].data]
    assert shown == list(buttons[0].args[0]["visible"])


def test_the_kept_rows_give_the_verdicts_estimates(tmp_path: Path) -> None:
    result = preservation(long_bridge, settings=SMALL, out=tmp_path)
    tokens, templates = (
        pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        for name in ("token_rows", "template_rows")
    )

    def without(y: pd.Series, given: pd.Series) -> np.ndarray:
        fit = stats.linregress(given, y)
        return np.asarray(y - fit.intercept - fit.slope * given)

    found = []
    for kept, x, given in (
        ("rank", "rarity", "surprise"),
        ("log_prob", "rarity", "surprise"),
        ("log_prob", "surprise", "rarity"),
    ):
        ranks = tokens.dropna(subset=[kept]).rank()
        ours, theirs = (without(ranks[name], ranks[given]) for name in (kept, x))
        found.append(stats.pearsonr(ours, theirs).statistic)

    # The means of words and sentences are taken out by indicators instead of in turns.
    said, sentence = (
        pd.get_dummies(columns, dtype=float)
        for columns in (
            templates["group"] + templates["said"],
            templates["group"] + templates["frame"] + templates["distance"],
        )
    )
    indicators = np.hstack([said, sentence])
    values = templates[["rank", "copy_log_prob"]].to_numpy()
    rest = values - indicators @ np.linalg.lstsq(indicators, values, rcond=None)[0]
    # Values that are equal up to rounding are ties.
    found.append(stats.spearmanr(*rest.round(9).T).statistic)

    expected = [finding.verdict.interval.estimate for finding in result.verdicts]
    assert found == pytest.approx(expected, abs=1e-9)


def test_settings_that_leave_no_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match="batch=1"):
        replace(SMALL, batch=1)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_few_layers_are_enough_for_every_verdict(n_layers: int) -> None:
    # Room for the templates, which are long in a vocabulary of 112.
    bridge = tiny_bridge("llama", num_hidden_layers=n_layers, max_position_embeddings=1024)
    every = PreservationSettings.preset("quick").every
    result = preservation(bridge, settings=replace(SMALL, every=every, template_words=2))
    assert len(result.verdicts) == 4
    assert all(found.verdict.interval.n >= 4 for found in result.verdicts)


def test_texts_without_a_reading_elsewhere_are_no_evidence(tmp_path: Path) -> None:
    """Where a text repeats one token, every position that has another token is missing."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(f'{{"text": "{text}"}}\n' for text in ("x", "xx", "xxx", "   ", "No")))
    found = preservation(long_bridge, settings=replace(SMALL, texts=(str(texts),))).verdicts
    # The rank, which comes first, is compared with no other position.
    said = [finding.verdict.words for finding in found[1:3]]
    assert said == ["undecided: nothing was measured"] * 2
