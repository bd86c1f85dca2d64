"""The machinery of runs: kept on disk, resumed, shared out, refused."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from distributed import Client, LocalCluster
from pandas.testing import assert_frame_equal
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments import (
    Analysis,
    Experiment,
    Finding,
    Result,
    RunDirectoryError,
    Unit,
    load_result,
    read_tables,
)
from lens_interventions.experiments.engine import run
from lens_interventions.experiments.engine.json_values import from_values, to_values
from lens_interventions.measures.intervals import mean_interval
from lens_interventions.measures.verdicts import verdict
from tests.support.pages import ROOT
from tests.support.tiny import tiny_bridge


@dataclass(frozen=True)
class Settings:
    starts: tuple[int, ...] = (3, 4, 5, 6)
    gate: str = "."  # the later units wait until it exists, as this directory does
    tags: tuple[tuple[str, int], ...] = (("a", 1),)


def small_bridge() -> TransformerBridge:
    return tiny_bridge("llama")


def other_bridge() -> TransformerBridge:
    return tiny_bridge("llama", seed=1)


def mean_logits(bridge: TransformerBridge, start: int, gate: str) -> pd.DataFrame:
    """Rows of a unit: two sequences, and the mean of their logits."""
    while start > 4 and not Path(gate).exists():
        time.sleep(0.02)
    tokens = torch.arange(start, start + 12).reshape(2, 6)
    means = bridge(tokens).mean((-1, -2))
    return pd.DataFrame({"start": start, "sequence": [0, 1], "mean": means.numpy()})


def fails(bridge: TransformerBridge, start: int) -> pd.DataFrame:
    raise ArithmeticError(f"cannot do {start}")


def first_stage(bridge: TransformerBridge, settings: Settings, rows: object) -> list[Unit]:
    return [
        Unit("first", f"unit-{n}", mean_logits, {"start": n, "gate": settings.gate})
        for n in settings.starts
    ]


def second_stage(
    bridge: TransformerBridge, settings: Settings, rows: dict[str, pd.DataFrame]
) -> list[Unit]:
    """Measures where the first stage found the largest mean."""
    best = int(rows["first"].sort_values("mean")["start"].iloc[-1])
    return [Unit("second", "best", mean_logits, {"start": 30 + best, "gate": settings.gate})]


def analyse(settings: Settings, rows: dict[str, pd.DataFrame]) -> Analysis:
    values = rows["first"].groupby("start")["mean"].mean().to_numpy()
    interval = mean_interval(values, rng=np.random.default_rng(0), n_resamples=99)
    judged = verdict(interval, smallest_effect=1e-6, lower_is_better=True, units="logits")
    alone = mean_interval(values[:1], rng=np.random.default_rng(0))  # its ends are nan
    return Analysis(
        tables={"rows": pd.concat(rows.values(), ignore_index=True)},
        verdicts=(
            Finding("Is it low?", judged, "a mean", "means"),
            Finding("Is the first?", replace(judged, interval=alone), "a mean", "means"),
        ),
        draw=draw,
    )


def draw(tables: dict[str, pd.DataFrame]) -> dict[str, object]:
    import plotly.graph_objects as go

    return {"means": go.Figure(go.Scatter(y=tables["rows"]["mean"].tolist()))}


STAGES = {"first": first_stage, "second": second_stage}


def example(settings: Settings | None = None) -> Experiment:
    return Experiment("example", settings or Settings(), STAGES, analyse)


@pytest.fixture(scope="module")
def expected() -> Result:
    """The unbroken run, in this process and without a directory."""
    return run(example(), small_bridge)


def assert_same(result: Result, expected: Result) -> None:
    """Equal bit by bit: the models are too small for several threads to share a sum."""
    assert_frame_equal(result.to_dataframe(), expected.to_dataframe(), check_exact=True)
    assert repr(result.verdicts) == repr(expected.verdicts)  # by repr, as nan != nan
    assert result.figures()["means"] == expected.figures()["means"]


def test_a_later_stage_builds_on_an_earlier_one(expected: Result) -> None:
    rows = expected.to_dataframe()
    assert rows["start"].tolist()[:-2] == [3, 3, 4, 4, 5, 5, 6, 6]
    first = rows[:-2]
    assert rows["start"].iloc[-1] == 30 + first["start"][first["mean"].idxmax()]


def test_a_live_bridge_and_a_loader_give_the_same(expected: Result) -> None:
    assert_same(run(example(), small_bridge()), expected)


def test_kept_run_loads_as_it_was_returned(tmp_path: Path, expected: Result) -> None:
    result = run(example(), small_bridge, out=tmp_path / "new" / "run")
    loaded = load_result(tmp_path / "new" / "run")
    assert_same(result, expected)
    assert_same(loaded, expected)
    assert loaded.header == result.header
    assert set(loaded.header["versions"]) >= {"lens_interventions", "torch", "transformers"}
    assert loaded.header["model"]["n_layers"] == 3
    tables = read_tables(tmp_path / "new" / "run")
    assert_frame_equal(pd.concat(tables.values(), ignore_index=True), result.to_dataframe())


def test_settings_come_back_from_a_finished_run(tmp_path: Path) -> None:
    settings = Settings(starts=(7,), tags=(("é", 2), ("b", 3)))
    run(example(settings), small_bridge, out=tmp_path)
    assert from_values(Settings, load_result(tmp_path).settings) == settings


def test_settings_with_another_field_are_refused() -> None:
    values = to_values(Settings())
    with pytest.raises(ValueError, match=r"missing \['gate'\], unknown \['gait'\]"):
        from_values(Settings, {"gait" if k == "gate" else k: v for k, v in values.items()})


def test_finished_units_are_not_measured_again(tmp_path: Path, expected: Result) -> None:
    run(example(), small_bridge, out=tmp_path)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("rows/*/*.parquet")}
    (tmp_path / "rows" / "first" / "unit-4.parquet").unlink()
    assert_same(run(example(), small_bridge, out=tmp_path), expected)
    again = {file.stem for file, when in written.items() if file.stat().st_mtime_ns != when}
    assert again == {"unit-4"}


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_an_executor_gives_the_same(tmp_path: Path, expected: Result, pool: str) -> None:
    executor: Executor
    if pool == "threads":
        executor = ThreadPoolExecutor(4)
        model = small_bridge()  # one bridge for all threads
    else:
        executor = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
        model = small_bridge
    with executor:
        assert_same(run(example(), model, out=tmp_path, executor=executor), expected)


def test_a_dask_cluster_gives_the_same(expected: Result) -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        assert_same(run(example(), small_bridge, executor=client.get_executor()), expected)


def test_a_live_bridge_cannot_go_to_another_process() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match="give the experiment the model's name or directory"),
    ):
        run(example(), small_bridge(), executor=pool)


# What a shell starts in the background ignores Ctrl-C, and so would all that it starts in turn.
_RUN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.experiments.engine.test_run import *
run(example(Settings(gate={gate!r})), small_bridge, out={out!r})
"""


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, Path, Path]]:
    """A process whose run has two units on disk and waits in the third; its directory and gate."""
    out, gate = tmp_path / "run", tmp_path / "gate"
    with subprocess.Popen(
        [sys.executable, "-c", _RUN.format(out=str(out), gate=str(gate))],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while len(list(out.glob("rows/*/*.parquet"))) < 2:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process, out, gate
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on(
    halfway: tuple[subprocess.Popen, Path, Path], how: signal.Signals
) -> None:
    process, out, gate = halfway
    process.send_signal(how)
    assert process.wait(timeout=60) == -how
    finished = {file: file.stat().st_mtime_ns for file in out.glob("rows/*/*.parquet")}
    assert {file.stem for file in finished} == {"unit-3", "unit-4"}
    (out / "rows" / "first" / ".unit-6.parquet.unfinished").write_bytes(b"PAR1 half")
    with pytest.raises(RunDirectoryError, match="is not finished"):
        load_result(out)

    gate.touch()
    settings = Settings(gate=str(gate))
    result = run(example(settings), small_bridge, out=out)
    assert_same(result, run(example(replace(settings)), small_bridge))
    assert all(file.stat().st_mtime_ns == when for file, when in finished.items())
    assert not list(out.rglob("*.unfinished"))


def test_a_second_process_is_refused_and_told_who_is_first(
    halfway: tuple[subprocess.Popen, Path, Path],
) -> None:
    process, out, gate = halfway
    with pytest.raises(RunDirectoryError, match=f"written by process {process.pid} on "):
        run(example(Settings(gate=str(gate))), small_bridge, out=out)
    gate.touch()
    _, error = process.communicate()
    assert process.returncode == 0, error
    load_result(out)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    with pytest.raises(RunDirectoryError, match=r"settings\.starts: \[3\] here, \[3, 4, 5, 6\]"):
        run(example(Settings(starts=(3,))), small_bridge, out=tmp_path)


def test_another_model_is_refused(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    with pytest.raises(RunDirectoryError, match=r"model\.weights_sha256"):
        run(example(), other_bridge, out=tmp_path)


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(RunDirectoryError, match=r"holds thesis\.tex and no settings\.json"):
        run(example(), small_bridge, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", '{"format": "other/1"}', "[]"])
def test_a_settings_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"settings\.json"):
        run(example(), small_bridge, out=tmp_path)
    assert (tmp_path / "settings.json").read_text() == text


@pytest.mark.parametrize("damage", ["cut", "empty", "plain"])
def test_damaged_rows_are_refused(tmp_path: Path, damage: str) -> None:
    run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "rows" / "first" / "unit-4.parquet"
    whole = file.read_bytes()
    if damage == "plain":  # a Parquet file, but not of a run
        pd.DataFrame({"start": [4]}).to_parquet(file)
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(RunDirectoryError, match=r"unit-4\.parquet is damaged or not"):
        run(example(), small_bridge, out=tmp_path)


def test_rows_of_another_run_are_refused(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path / "a")
    run(example(), other_bridge, out=tmp_path / "b")
    theirs = tmp_path / "a" / "rows" / "first" / "unit-4.parquet"
    (tmp_path / "b" / "rows" / "first" / "unit-4.parquet").write_bytes(theirs.read_bytes())
    with pytest.raises(RunDirectoryError, match=r"unit-4\.parquet belongs to another run"):
        run(example(), other_bridge, out=tmp_path / "b")


def test_rows_under_the_name_of_another_unit_are_refused(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    folder = tmp_path / "rows" / "first"
    (folder / "unit-3.parquet").replace(folder / "unit-4.parquet")
    with pytest.raises(RunDirectoryError, match="what another unit measured"):
        run(example(), small_bridge, out=tmp_path)


def test_a_unit_that_fails_says_which_and_keeps_the_others(tmp_path: Path) -> None:
    def stage(bridge: TransformerBridge, settings: Settings, rows: object) -> list[Unit]:
        bad = Unit("second", "bad", fails, {"start": 9})
        return [*first_stage(bridge, settings, rows), bad]

    broken = replace(example(), stages={"only": stage})
    with pytest.raises(ArithmeticError, match="cannot do 9") as caught:
        run(broken, small_bridge, out=tmp_path)
    assert caught.value.__notes__ == ["while measuring second/bad"]
    assert len(list(tmp_path.glob("rows/first/*.parquet"))) == 4


def test_two_units_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="come twice: first/unit-3"):
        run(example(Settings(starts=(3, 3))), small_bridge)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a b"])
def test_a_unit_name_is_a_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="must be letters, digits"):
        Unit("table", name, mean_logits, {})


def test_parameters_are_json() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Unit("table", "name", mean_logits, {"start": torch.ones(1)})


def test_hooks_on_the_bridge_are_refused() -> None:
    bridge = small_bridge()
    with (
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x)]),
        pytest.raises(ValueError, match="hooks on the bridge"),
    ):
        run(example(), bridge)


def test_progress_counts_what_was_finished_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(example(), small_bridge, out=tmp_path)
    assert capsys.readouterr().err == ""
    run(example(), small_bridge, out=tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "example, first" in shown
    assert "4/4" in shown


def test_settings_are_readable_json(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    header = json.loads((tmp_path / "settings.json").read_text())
    assert header["experiment"] == "example"
    assert header["settings"] == {"starts": [3, 4, 5, 6], "gate": ".", "tags": [["a", 1]]}
