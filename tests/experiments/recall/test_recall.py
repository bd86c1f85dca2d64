"""The recall experiment: verdicts on planted data, and a run of a tiny model."""

import importlib.util
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from lens_interventions.experiments import RecallSettings, load_result, recall
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.engine.results import Result
from lens_interventions.experiments.recall.analysis import analyse
from lens_interventions.experiments.recall.stages import IMPORTANCE, PARTS
from lens_interventions.materials.corpora import read_documents
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")

SMALL = RecallSettings(
    texts=("prose",),
    documents=10,
    document_tokens=24,
    fitted_texts=("python_reference",),
    fitted_tokens=1500,
    window=96,
    bases=("unembedding", "pca"),
    resampling=Resampling(n_resamples=199),
)
POINTS = ["0_pre", "1_pre", "2_pre", "3_pre", "4_pre", "final_post"]


def planted(curve: list[float], stored: float) -> dict[str, pd.DataFrame]:
    """Tables of 40 documents that follow a curve of recovery, measured by two units.

    The less important half of each basis holds `stored` more of the input than of the stream.
    """
    rng = np.random.default_rng(2)
    documents = [f"d{number}" for number in range(40)]
    recovered = [
        {
            "measure": "recovered",
            "basis": "",
            "part": part,
            "point": point,
            "document": document,
            "total": 100 * share + rng.normal(),
            "count": 100,
        }
        for unit in (documents[:20], documents[20:])
        for point, share in zip(POINTS, curve, strict=True)
        for part in ("1 to 9", "all")
        for document in unit
    ]
    read = [
        {
            "measure": measure,
            "basis": basis,
            "part": part,
            "point": point,
            "document": document,
            "total": 0.4 + stored * (measure == "input") * (part == PARTS[1]) + 0.01 * rng.normal(),
            "count": 1,
        }
        for basis in SMALL.bases
        for part in PARTS
        for measure in ("input", "estimate", "stream")
        for point in POINTS
        for document in documents
    ]
    importance = [
        {"measure": IMPORTANCE, "basis": basis, "part": part, "point": "0_pre", "total": 0.5}
        for basis in SMALL.bases
        for part in PARTS
    ]
    return {"recall": pd.DataFrame([*recovered, *read, *importance])}


@pytest.mark.parametrize(
    ("curve", "stored", "expected", "rises"),
    [
        ([1, 0.6, 0.2, 0.2, 0.5, 0.9], 0.2, ["helps", "helps", "helps"], [0.7, 0.7]),
        ([1, 0.9, 0.3, 0.6, 0.4, 0.1], 0.0, ["hurts", "helps", "no effect"], [-0.2, 0.3]),
        ([1, 0.8, 0.6, 0.4, 0.3, 0.1], -0.2, ["hurts", "hurts", "hurts"], [-0.2, -0.1]),
    ],
)
def test_planted_curves_are_judged(curve, stored, expected, rises):
    found = analyse(SMALL, planted(curve, stored))
    estimates = [finding.verdict.interval.estimate for finding in found.verdicts]
    assert estimates[0] == pytest.approx(rises[0], abs=0.01)
    assert estimates[1] == pytest.approx(rises[1], abs=0.01)
    assert estimates[2] == pytest.approx(stored, abs=0.01)
    assert [finding.verdict.outcome for finding in found.verdicts] == expected


def test_one_half_of_the_documents_chooses_and_the_other_reports() -> None:
    tables = planted([0.0] * len(POINTS), 0.0)
    rows = tables["recall"]
    # By the half that chooses 2_pre is least and rises most. By all documents 1_pre would be.
    choosing = dict(zip(POINTS, (1, 0.6, 0.2, 0.3, 0.5, 0.9), strict=True))
    reporting = dict(zip(POINTS, (1, 0.1, 0.6, 0.6, 0.6, 0.65), strict=True))
    recovered = rows["measure"] == "recovered"
    even = rows["document"].str[1:].astype(float) % 2 == 0
    share = rows["point"].map(choosing).where(even, rows["point"].map(reporting))
    rows.loc[recovered, "total"] += 100 * share[recovered]
    for finding in analyse(SMALL, tables).verdicts[:2]:
        assert finding.verdict.interval.estimate == pytest.approx(0.05, abs=0.01)
        assert finding.verdict.interval.n == 20
        assert "2_pre" in finding.method


def test_intervals_know_that_each_document_is_compared_with_all_others() -> None:
    tables = planted([1, 0.6, 0.2, 0.2, 0.5, 0.9], 0.2)
    found = analyse(SMALL, tables)
    read = found.tables["read"]
    width = (read["high"] - read["low"]).groupby(read["measure"]).mean()
    # Noise is alike in all three. Its interval is twice as wide where each document counts twice.
    assert width["input"] / width["stream"] == pytest.approx(2, rel=0.15)
    assert width["estimate"] / width["stream"] == pytest.approx(1, rel=0.15)
    rows = tables["recall"]
    middle = rows[(rows["basis"] == SMALL.bases[0]) & rows["point"].isin(POINTS[2:4])]
    values = middle[middle["part"] == PARTS[1]].pivot_table(
        index="document", columns="measure", values="total"
    )
    input_, stream = values["input"], values["stream"]
    spread = (2 * (input_ - input_.mean()) - stream).std() / math.sqrt(len(values))
    interval = found.verdicts[2].verdict.interval
    # A bootstrap of 199 resamples is within a tenth or so of the normal interval.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.2)


def run(out: Path) -> Result:
    with torch.no_grad():
        return recall(lambda: tiny_bridge("llama"), settings=SMALL, out=out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("runs") / "recall"
    return run(out), out


def test_a_run_from_start_to_end(finished: tuple[Result, Path]) -> None:
    result, out = finished
    table = result.to_dataframe()
    everything = table[table["part"] == "all"].set_index("point")
    assert everything.index.tolist() == ["0_pre", "1_pre", "2_pre", "final_post"]
    assert everything.loc["0_pre", "estimate"] == 1  # the input itself
    halves = result.tables["read"].pivot_table(
        index=["measure", "basis", "point"], columns="part", values="estimate"
    )
    np.testing.assert_allclose(halves.sum(axis=1), 1, atol=1e-6)  # both bases are orthogonal
    loaded = load_result(out)
    assert_frame_equal(loaded.to_dataframe(), table)
    assert {finding.figure for finding in result.verdicts} == set(loaded.figures())


def test_a_run_that_was_stopped_ends_in_the_same_numbers(
    finished: tuple[Result, Path], tmp_path: Path
) -> None:
    unbroken, out = finished
    copy = shutil.copytree(out, tmp_path / "stopped")
    files = {path.stem: path for path in (copy / "rows/recall").iterdir()}
    assert set(files) == {"recovered-000", "recovered-008", "read-unembedding", "read-pca"}
    for name in ("recovered-008", "read-pca"):
        files[name].unlink()
    went_on = run(copy)
    for name, table in unbroken.tables.items():
        assert_frame_equal(went_on.tables[name], table)


def test_no_document_is_fitted_to_and_read() -> None:
    from lens_interventions.experiments.recall.stages import plan

    settings = replace(SMALL, fitted_texts=("prose",), fitted_tokens=100_000)
    units = plan(shared_bridge("llama"), settings, {})
    read = {
        tuple(document["tokens"]) for unit in units for document in unit.parameters["documents"]
    }
    for unit in units:
        fitted = {tuple(tokens[: settings.document_tokens]) for tokens in unit.parameters["fitted"]}
        assert not read & fitted
    assert len(read | fitted) == len(read_documents("prose"))


def test_what_cannot_be_measured_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="bases must be different values"):
        replace(SMALL, bases=("pca", "pca"))
    with pytest.raises(ValueError, match="fitted_tokens at least window"):
        replace(SMALL, fitted_tokens=50)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeError, match=r"pip install .\.\[nmf\]"):
        recall(shared_bridge("llama"), settings=replace(SMALL, bases=("nmf",)))
