"""Curvatures against a polynomial fitted to patched losses, and what they predict."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.slopes.prediction import SlopePrediction
from lens_interventions.measures.intervals import Interval
from tests.support.planted_learned import ablated_bridge, key_value_texts
from tests.support.tiny import random_tokens, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


@pytest.mark.parametrize("bridge", ["gpt2", "gemma2"], indirect=True)
def test_curvatures_are_second_derivatives(bridge):
    texts = [random_tokens(9), random_tokens(14)]
    patches = [
        li.NextTokenPatch(layer=1, strength=3.0, scale="norm", mode="add", positions=range(1, 14)),
        li.NextTokenPatch(layer=(0, 2), strength=0.0, scale="norm", source="current"),
    ]
    found = li.curvature(bridge, texts, patches, step=1e-3, scopes=["all", "other"], progress=False)
    strengths = np.linspace(-4e-3, 4e-3, 9)
    for number, patch in enumerate(patches):
        for row, tokens in enumerate(texts):
            losses = -li.teacher_forced_log_probs(
                bridge, tokens, [dataclasses.replace(patch, strength=a) for a in strengths]
            ).sum((-1, -2))
            _, slope, half = np.polynomial.polynomial.polyfit(strengths, losses, 6)[:3]
            assert found.curvatures[row, 0, number] == pytest.approx(2 * half, rel=1e-4)
            assert found.slopes[row, 0, number] == pytest.approx(slope, rel=1e-6)
    assert found.counts.tolist() == [[8, 8], [13, 13]]
    # The error that is told is about the one that half the step makes.
    finer = li.curvature(bridge, texts, patches, step=5e-4, progress=False)
    moved = np.abs(found.curvatures[:, :1] - finer.curvatures)
    assert (moved <= 1e-6 + np.abs(found.errors[:, :1])).all()


def test_a_map_and_a_curvature_predict_patched_losses(llama):
    texts = [random_tokens(12) for _ in range(3)]
    slopes = li.slope_map(llama, texts, progress=False)
    patch = slopes.patch(1, strength=0.0)
    curvature = li.curvature(llama, texts, [patch], step=1e-3, progress=False)
    bend = slopes.predict(patch, curvature=curvature, seed=5).curvature
    assert bend == curvature.of(patch, scope="all", seed=5)
    for strength in (0.003, -0.003):
        moved = dataclasses.replace(patch, strength=strength)
        predicted = slopes.predict(moved, curvature=curvature)
        clean, patched = -li.teacher_forced_log_probs(llama, torch.stack(texts), [None, moved])
        measured = float((patched - clean).mean())
        assert predicted.change == pytest.approx(measured, rel=0.05)
        linear = slopes.predict(moved)
        assert linear.curvature is None
        assert linear.change == pytest.approx(strength * predicted.slope.estimate)
    frame = curvature.to_dataframe()
    (row,) = frame.to_dict("records")
    assert row["slope"] == pytest.approx(predicted.slope.estimate, rel=1e-6)
    assert row["curvature"] == pytest.approx(predicted.curvature.estimate)


def interval(estimate):
    return Interval(estimate, -1.0, 1.0, 0.95, "BCa", 9)


def test_the_minimum_of_a_parabola():
    found = SlopePrediction(0.5, interval(-2.0), interval(4.0))
    assert found.best_strength == 0.5
    assert found.gain == 0.5
    assert found.change == -0.5
    uphill = SlopePrediction(0.5, interval(-2.0), interval(-4.0))
    assert np.isnan([uphill.best_strength, uphill.gain]).all()


class TestThePlantedModel:
    """Copying was ablated at block 1: what the true token restores there, no control does."""

    @pytest.fixture(scope="class")
    @classmethod
    def slopes(cls):
        return li.slope_map(
            ablated_bridge(),
            key_value_texts(24, seed=0),
            sources=["true", "current", "previous", "shuffled", "random", "guess", "zero"],
            scopes=["copyable", "other"],
            scale="raw",
            first_position=0,
            progress=False,
        )

    def test_the_slope_is_where_the_true_token_restores_copying(self, slopes):
        copyable, other = slopes.slopes[:, 0, 0]
        true, *controls = copyable
        assert true[1] < -0.1
        assert np.abs(np.array(controls)).max() < 0.1 * abs(true[1])
        assert abs(true[0]) < 0.1 * abs(true[1])
        assert np.abs(other).max() < 0.3 * abs(true[1])

    def test_the_table_tells_it_from_every_control(self, slopes):
        frame = slopes.to_dataframe()
        there = frame[(frame["scope"] == "copyable") & (frame["layer"] == 1)]
        minus = there[there["minus"] != ""]
        assert sorted(minus["minus"]) == sorted(set(slopes.sources) - {"true"})
        assert (minus["high"] < 0).all()
        own = there[there["minus"] == ""].set_index("source")["estimate"]
        assert own["true"] - own["random"] == pytest.approx(
            minus.set_index("minus")["estimate"]["random"]
        )

    def test_the_figure(self, slopes):
        figure = json.loads(slopes.plot(scope="other", theme="dark").to_json())
        each, minus = figure["data"]
        assert each["x"] == list(slopes.sources)
        assert minus["x"] == list(slopes.sources[1:])
        assert each["y"] == ["0", "1"]
        np.testing.assert_allclose(np.array(each["z"]).T, slopes.slopes[1, 0, 0])
        assert "24 texts" in each["customdata"][0][0]
        assert "other" in figure["layout"]["title"]["text"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "raw"}, "made with scale='norm', but the patch has 'raw'"),
        ({"source": "direction"}, "no source 'direction'; it has true"),
        ({"mode": "correct"}, "no mode 'correct'"),
        ({"layer": (1, 2)}, "no layer 2; it has 0, 1"),
    ],
)
def test_a_map_predicts_only_what_it_has(llama, changes, message):
    slopes = li.slope_map(llama, [random_tokens(8)], layers=[0, 1], progress=False)
    with pytest.raises(ValueError, match=message):
        slopes.predict(dataclasses.replace(slopes.patch(0, strength=0.1), **changes))


def test_a_function_of_the_same_name_is_another_source(llama):
    def made(shift):
        def own(site):
            return site.text.at(site.position + shift)

        return own

    slopes = li.slope_map(
        llama, [random_tokens(8)], sources=[made(1)], layers=[0], max_length=8, progress=False
    )
    patch = slopes.patch(0, strength=0.1, source="own")
    slopes.predict(patch)
    with pytest.raises(ValueError, match="source of this name is another function"):
        slopes.predict(dataclasses.replace(patch, source=made(0)))


def test_numbered_positions_are_not_counted_in_each_piece(llama):
    patch = li.NextTokenPatch(layer=1, strength=1.0, positions=[3])
    for measure in (
        lambda **options: li.curvature(llama, [random_tokens(20)], patch, **options),
        lambda **options: li.rescue(llama, [random_tokens(20)], patch, **options),
        lambda **options: li.head_slopes(llama, [random_tokens(20)], patch, **options),
    ):
        with pytest.raises(ValueError, match=r"text 0 has 20 tokens .* in pieces of 10"):
            measure(max_length=10, scopes=["all"], progress=False)
    assert li.curvature(llama, [random_tokens(20)], patch, progress=False).counts.sum() == 19


def test_a_gate_on_the_output_is_another_gate(llama):
    options = {"gate": 2.0, "layers": [0], "progress": False}
    slopes = li.slope_map(llama, [random_tokens(8)], **options)
    gated = dataclasses.replace(slopes.patch(0, strength=0.1), gate_on="output")
    with pytest.raises(ValueError, match="made with gate_on='lens', but the patch has 'output'"):
        slopes.predict(gated)


def test_a_curvature_is_of_the_patch_that_it_was_measured_for(llama):
    slopes = li.slope_map(llama, [random_tokens(8)], layers=[0, 1], progress=False)
    curvature = li.curvature(
        llama, [random_tokens(8)], [slopes.patch(0, strength=1.0)], progress=False
    )
    with pytest.raises(ValueError, match=r"was not measured: .*; give it to li\.curvature"):
        slopes.predict(slopes.patch(1, strength=1.0), curvature=curvature)
    everywhere = dataclasses.replace(slopes.patch(0, strength=1.0), first_position=0)
    other = li.curvature(llama, [random_tokens(8)], [everywhere], progress=False)
    with pytest.raises(ValueError, match="measured at other positions"):
        slopes.predict(everywhere, curvature=other)


def test_one_layer_is_a_list_of_one(llama):
    patch = li.NextTokenPatch(layer=[1], strength=0.1)
    found = li.curvature(llama, [random_tokens(8)], patch, progress=False)
    (row,) = found.to_dataframe().query("scope == 'all'").to_dict("records")
    one = found.of(dataclasses.replace(patch, layer=1, strength=0.5), scope="all")
    assert one.estimate == row["curvature"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patches": []}, "give one or more patches, and none that is None"),
        ({"patches": [li.NextTokenPatch(layer=1, strength=1.0), None]}, "none that is None"),
        (
            {"patches": li.NextTokenPatch(layer=1, strength=1.0, positions="generated")},
            "depends on where a prompt ends, and these texts have none",
        ),
        ({"step": 0.0}, "step must be a finite number above 0, got 0.0"),
        ({"max_length": 500}, "max_length must be from 2 to the model's 128"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_mistakes(llama, arguments, message):
    given = {"patches": [li.NextTokenPatch(layer=1, strength=1.0)], "progress": False}
    with pytest.raises(ValueError, match=message):
        li.curvature(llama, [random_tokens(8)], **given | arguments)


def test_the_error_is_what_the_larger_step_adds_to_central_differences(llama):
    tokens, h = random_tokens(9), 0.1
    patch = li.NextTokenPatch(layer=1, strength=1.0, scale="norm", mode="add")
    found = li.curvature(llama, [tokens], patch, step=h, progress=False)
    strengths = [-2 * h, -h, 0.0, h, 2 * h]
    moved = [dataclasses.replace(patch, strength=a) for a in strengths]
    low2, low, clean, up, up2 = -li.teacher_forced_log_probs(llama, tokens, moved).sum((-1, -2))
    small = float(low - 2 * clean + up) / h**2
    large = float(low2 - 2 * clean + up2) / (2 * h) ** 2
    (curvature,), (error,) = found.curvatures.ravel(), found.errors.ravel()
    # Rounding of 1e-13 nats is divided by 0.01.
    assert abs(small - large) > 1e-6
    assert error == pytest.approx((small - large) / 3, abs=1e-9)
    # What is left without it is the difference with the smaller step alone.
    assert curvature - error == pytest.approx(small, abs=1e-9)


def test_the_table_has_the_lowest_point_of_the_parabola_per_token():
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    found = li.Curvature(
        curvatures=np.array([[[6.0]], [[2.0]]]),
        slopes=np.array([[[-5.0]], [[1.0]]]),
        errors=np.array([[[0.5]], [[-0.1]]]),
        counts=np.array([[3.0], [5.0]]),
        patches=(patch,),
        scopes=("all",),
    )
    (row,) = found.to_dataframe().to_dict("records")
    upside_down = dataclasses.replace(found, curvatures=-found.curvatures).to_dataframe()
    assert upside_down[["best_strength", "gain"]].isna().all(axis=None)
    # Of all 8 predictions, along strengths that are 0.001 apart.
    strengths = np.linspace(-2, 2, 4001)
    changes = (-4.0 * strengths + 8.0 * strengths**2 / 2) / 8
    assert row["best_strength"] == pytest.approx(strengths[changes.argmin()], abs=1e-6)
    assert row["gain"] == pytest.approx(-changes.min(), abs=1e-6)
    assert row["error"] == pytest.approx(0.4 / 8)


def test_the_figure_has_a_row_for_each_scope_and_patch(llama):
    patches = [
        li.NextTokenPatch(layer=1, strength=a, source=s) for a, s in ((1, "true"), (2, "current"))
    ]
    texts = [random_tokens(12) for _ in range(3)]
    found = li.curvature(llama, texts, patches, scopes=["all", "other"], progress=False)
    (points,) = found.plot().data
    frame = found.to_dataframe()
    assert frame["label"].tolist() == ["true", "true", "current", "current"]
    assert list(points.y) == ["all: true", "other: true", "all: current", "other: current"]
    np.testing.assert_allclose(points.x, frame["curvature"])
    (alone,) = li.curvature(llama, texts, patches[1], progress=False).plot().data
    assert list(alone.y) == ["all: layer 1, interpolate, current"]
    np.testing.assert_allclose(
        np.array(points.x) + points.error_x.array, frame["curvature_high"], rtol=1e-12
    )


def test_a_file_of_sums_serves_all_strengths(llama, tmp_path):
    """They change no curvature and no slope by head."""
    texts, out = [random_tokens(9)], tmp_path / "sums"
    for strength in (0.1, 0.2):
        patch = li.NextTokenPatch(layer=1, strength=strength, scale="norm", mode="add")
        options = {"scopes": ["all"], "progress": False}
        li.curvature(llama, texts, [patch], checkpoint=out, **options)
        li.head_slopes(llama, texts, patch, checkpoint=tmp_path / "heads", **options)
    with pytest.raises(ValueError, match="another measurement, which differs in step"):
        li.curvature(llama, texts, [patch], checkpoint=out, step=0.5, **options)


def test_half_precision_is_refused():
    bridge = tiny_bridge("llama", dtype=torch.bfloat16)
    patch = li.NextTokenPatch(layer=1, strength=0.1)
    with pytest.raises(ValueError, match=r"in float32 or float64: products are in torch.bfloat16"):
        li.curvature(bridge, [random_tokens(6)], patch, progress=False)
    bridge = tiny_bridge("llama", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="bfloat16"):
        li.curvature(bridge, [random_tokens(6)], patch, progress=False)
