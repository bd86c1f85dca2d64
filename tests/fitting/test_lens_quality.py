"""The quality report against means taken by hand."""

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

from lens_interventions.fitting.affine_fit import fit_affine_lens
from lens_interventions.fitting.lens_quality import lens_quality
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.corpora import random_texts
from tests.support.tiny import shared_bridge


@pytest.fixture(scope="module")
def judged():
    bridge = shared_bridge("llama")
    lens = fit_affine_lens(bridge, random_texts(60), progress=False)
    texts = random_texts(8, length=12, seed=5)
    return bridge, lens, texts, lens_quality(bridge, lens, texts, progress=False)


def test_rows_are_means_over_the_texts_without_their_first_tokens(judged):
    bridge, lens, texts, quality = judged
    frame = quality.to_dataframe()
    points = quality.points
    frame = {
        key: rows.set_index("point").loc[list(points)]
        for key, rows in frame.groupby(["statistic", "lens"])
    }
    read = {
        "raw": [logit_lens(bridge, text) for text in texts],
        "fitted": [logit_lens(bridge, text, lens=lens) for text in texts],
    }
    for name, trajectories in read.items():
        kl = np.stack([each.kl_final[:, 0, 1:].numpy() for each in trajectories])
        loss = np.stack([each.next_log_prob[:, 0, 1:-1].numpy() for each in trajectories])
        agree = np.stack([
            (each.top_ids[:, 0, 1:, 0] == each.top_ids[-1:, 0, 1:, 0]).numpy()
            for each in trajectories
        ])  # fmt: skip
        for statistic, values in (
            ("kl_final", kl),
            ("next_log_prob", loss),
            ("agrees_final", agree),
        ):
            found = frame[statistic, name]["mean"]
            np.testing.assert_allclose(found, values.mean((0, 2)), atol=1e-9)
    difference = frame["kl_final", "fitted - raw"]["mean"]
    expected = frame["kl_final", "fitted"]["mean"] - frame["kl_final", "raw"]["mean"]
    np.testing.assert_allclose(difference, expected, atol=1e-9)
    last = frame["kl_final", "fitted - raw"].loc["final_post"]
    assert last[["mean", "low", "high"]].tolist() == [0, 0, 0]


def test_the_summary_is_the_mean_over_points(judged):
    quality = judged[-1]
    means = quality.to_dataframe().groupby(["statistic", "lens"])["mean"].mean()
    for statistic, lenses in quality.summary().items():
        for lens, interval in lenses.items():
            assert interval.estimate == pytest.approx(means[statistic, lens])
            assert interval.low <= interval.estimate <= interval.high
    assert quality.summary()["kl_final"]["fitted - raw"].high < 0


def test_the_note_and_the_figure_come_along(judged):
    lens, quality = judged[1], judged[-1]
    assert quality.notes == {"fitted": lens.settings}
    names = {trace.name for trace in quality.plot().data if trace.name}
    assert any("raw" in name for name in names)
    assert any("fitted" in name for name in names)


def test_texts_with_nothing_but_a_first_token_are_left_out(judged):
    bridge, lens, texts, quality = judged
    more = lens_quality(bridge, lens, [[5], *texts], progress=False)
    np.testing.assert_array_equal(more.readings["fitted"].totals, quality.readings["fitted"].totals)


def test_one_text_is_not_read_letter_by_letter(judged):
    bridge, lens = judged[:2]
    with pytest.raises(TypeError, match="put it in a list"):
        lens_quality(bridge, lens, "the quick brown fox", progress=False)


def test_printed_it_says_how_the_lens_reads(judged):
    *_, quality = judged
    shown = str(quality).splitlines()
    assert shown[0] == "LensQuality of 4 points"
    for line, (statistic, lenses) in zip(shown[1:], quality.summary().items(), strict=True):
        assert line.startswith(f"{statistic}: raw {lenses['raw']}, fitted {lenses['fitted']}")


def test_several_lenses_are_compared_on_the_same_texts(judged):
    bridge, lens, texts, quality = judged
    jacobian = JacobianLens(
        {0: 0.5 * torch.eye(32), 1: torch.eye(32)},
        n_prompts=3,
        d_model=32,
        metadata={"corpus": "none"},
    )
    lenses = {"affine": lens, "Jacobian": jacobian}
    several = lens_quality(bridge, lenses, texts, progress=False)
    assert several.notes["Jacobian"] == {"n_prompts": 3, "corpus": "none"}
    kl = several.summary(against="affine")["kl_final"]
    assert list(kl) == ["raw", "affine", "Jacobian", "raw - affine", "Jacobian - affine"]
    assert kl["affine"] == quality.summary()["kl_final"]["fitted"]
    gain = kl["Jacobian"].estimate - kl["affine"].estimate
    assert kl["Jacobian - affine"].estimate == pytest.approx(gain)
    frame = several.to_dataframe()
    rows = (frame.lens == "Jacobian - raw") & (frame.statistic == "kl_final")
    # A map that only shortens is undone by the final norm, and one that does nothing is no map.
    assert frame["mean"][rows].to_numpy() == pytest.approx(0, abs=1e-4)
    with pytest.raises(ValueError, match="against must be one of"):
        several.summary(against="tuned")
    with pytest.raises(ValueError, match="none of them 'raw'"):
        lens_quality(bridge, {"raw": lens}, texts, progress=False)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"lens": None}, TypeError, "'fitted' is None: the raw lens is read in any case"),
        ({"lens": {1: None}}, TypeError, "the name of a lens must be of the class str, got int 1"),
        ({"lens": "lens.safetensors"}, TypeError, r"load a file with AffineLens\.load"),
        ({"skip_first": -1}, ValueError, "skip_first must be at least 0, got -1"),
        ({"skip_first": None}, TypeError, "skip_first must be a whole number, got None"),
        ({"max_tokens": 2, "skip_first": 2}, ValueError, "max_tokens must be above .* 2 and 2"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_lens_is_refused_before_a_text_is_read(judged, given, error, message):
    bridge, lens, texts, _ = judged
    read = []
    some = (read.append(text) or text for text in texts)
    with pytest.raises(error, match=message):
        lens_quality(bridge, **{"lens": lens, "texts": some, "progress": False} | given)
    assert not read
