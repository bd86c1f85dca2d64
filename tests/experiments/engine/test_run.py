"""Runs: their stages, who measures, stopping and going on."""

import gc
import os
import pickle
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import dask
import pandas as pd
import pytest
import torch
from distributed import Client, LocalCluster
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments import (
    Analysis,
    Result,
    RunDirectoryError,
    Unit,
    load_result,
    read_tables,
    run,
)
from lens_interventions.experiments.engine.model_source import ModelSource
from lens_interventions.experiments.engine.work_units import measure_unit
from lens_interventions.materials import docstring_versions
from tests.support.full_disk import files_of_at_most
from tests.support.processes import PROCESSES
from tests.support.small_run import (
    Settings,
    assert_same,
    example,
    first_stage,
    run_small,
    small_bridge,
)


def fails(bridge: TransformerBridge, start: int) -> pd.DataFrame:
    raise ArithmeticError(f"cannot do {start}")


def counts(bridge: TransformerBridge, start: int, file: Path) -> pd.DataFrame:
    """Fails at first, and goes on from what it kept."""
    kept = int(load_file(file)["count"]) if file.exists() else start
    save_file({"count": torch.tensor(kept + 1)}, file)
    if kept == start:
        raise InterruptedError
    return pd.DataFrame({"start": [start], "kept": [kept]})


@pytest.fixture(scope="module")
def expected() -> Result:
    """The unbroken run, in this process and without a directory."""
    return run(example(), small_bridge)


def test_a_later_stage_builds_on_an_earlier_one(expected: Result) -> None:
    rows = expected.to_dataframe()
    assert rows["start"].tolist()[:-2] == [3, 3, 4, 4, 5, 5, 6, 6]
    first = rows[:-2]
    assert rows["start"].iloc[-1] == 30 + first["start"][first["mean"].idxmax()]


def test_a_unit_may_keep_a_file_and_go_on_from_it(tmp_path: Path) -> None:
    unit = Unit("first", "counts", counts, {"start": 5}, keeps_file=True)
    experiment = replace(
        example(),
        stages={"first": lambda *_: [unit]},
        analyse=lambda _settings, rows: Analysis({"rows": rows["first"]}, (), lambda _: {}),
    )
    out = tmp_path / "run"
    with pytest.raises(InterruptedError):
        run(experiment, small_bridge, out=out)
    for _ in range(2):  # The second finds it measured.
        assert run(experiment, small_bridge, out=out).to_dataframe()["kept"].tolist() == [6]
    assert int(load_file(out / "files" / "first" / "counts.safetensors")["count"]) == 7


def test_a_relative_directory_is_that_of_the_caller(tmp_path: Path, monkeypatch) -> None:
    """Workers may be elsewhere, and make the folder where there is none."""
    unit = Unit("first", "counts", counts, {"start": 5}, keeps_file=True)
    experiment = replace(example(), stages={"first": lambda *_: [unit]})
    monkeypatch.chdir(tmp_path)
    pool = ProcessPoolExecutor(1, mp_context=PROCESSES, initializer=os.chdir, initargs=("/",))
    with pool, pytest.raises(InterruptedError):
        run(experiment, small_bridge, out="runs/one", executor=pool)
    assert (tmp_path / "runs" / "one" / "files" / "first" / "counts.safetensors").is_file()
    elsewhere = tmp_path / "another" / "disk" / "counts.safetensors"
    with pytest.raises(InterruptedError):
        measure_unit(ModelSource(small_bridge), unit, file=elsewhere)
    assert elsewhere.is_file()


def test_a_live_bridge_and_a_loader_give_the_same(expected: Result) -> None:
    assert_same(run(example(), small_bridge()), expected)


def test_kept_run_loads_as_it_was_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Result
) -> None:
    result = run(example(), small_bridge, out=tmp_path / "new" / "run")
    monkeypatch.chdir(tmp_path)
    kept = pickle.dumps(load_result("new/run"))
    monkeypatch.chdir("/")
    loaded = pickle.loads(kept)
    assert_same(result, expected)
    assert_same(loaded, expected)
    assert loaded.header == result.header
    # Also of packages whose docstrings are read as texts.
    expected_names = {"lens_interventions", "python", "transformers", *docstring_versions()}
    assert set(loaded.header["versions"]) == expected_names
    assert loaded.header["model"]["n_layers"] == 3
    tables = read_tables(tmp_path / "new" / "run")
    assert_frame_equal(pd.concat(tables.values(), ignore_index=True), result.to_dataframe())


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
        executor = ProcessPoolExecutor(2, mp_context=PROCESSES)
        model = small_bridge
    with executor:
        assert_same(run(example(), model, out=tmp_path, executor=executor), expected)


def some_rows(_bridge: TransformerBridge, start: int) -> pd.DataFrame:
    """None for the first start."""
    return pd.DataFrame([{"start": start, "name": "a", "right": True}] * (start > 3))


def test_a_unit_without_rows_changes_no_type(tmp_path: Path) -> None:
    def stage(_bridge: TransformerBridge, settings: Settings, _rows: object) -> list[Unit]:
        return [Unit("rows", f"unit-{n}", some_rows, {"start": n}) for n in settings.starts]

    def analyse(_settings: Settings, rows: dict[str, pd.DataFrame]) -> Analysis:
        return Analysis(rows, (), lambda _tables: {})

    made = replace(example(), stages={"first": stage}, analyse=analyse)
    found = run(made, small_bridge, out=tmp_path / "run").tables["rows"]
    assert found["start"].tolist() == [4, 5, 6]
    kept = load_result(tmp_path / "run").tables["rows"]
    for table in (found, kept):
        assert [table[name].dtype.kind for name in ("start", "right")] == ["i", "b"]


def test_a_run_lets_go_of_its_model() -> None:
    bridge = small_bridge()
    known = weakref.ref(bridge)
    with ThreadPoolExecutor(2) as executor:
        run(example(), bridge, executor=executor)
    del bridge
    gc.collect()
    assert known() is None


def test_a_dask_cluster_gives_the_same(expected: Result) -> None:
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        assert_same(run(example(), small_bridge, executor=client.get_executor()), expected)


@pytest.fixture
def halfway(tmp_path: Path) -> Iterator[tuple[BaseProcess, Path, Path]]:
    """A process whose run has two units on disk and waits in the third; its directory and gate."""
    out, gate = tmp_path / "run", tmp_path / "gate"
    process = PROCESSES.Process(target=run_small, args=(out, gate))
    process.start()
    try:
        deadline = time.monotonic() + 120
        while len(list(out.glob("rows/*/*.parquet"))) < 2:
            assert process.exitcode is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, out, gate
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on(
    halfway: tuple[BaseProcess, Path, Path], how: signal.Signals
) -> None:
    process, out, gate = halfway
    assert process.pid is not None
    os.kill(process.pid, how)
    process.join(timeout=60)
    # By the signal; or with 1 and a traceback, where Python turned it into a KeyboardInterrupt.
    assert process.exitcode in (-how, 1)
    finished = {file: file.stat().st_mtime_ns for file in out.glob("rows/*/*.parquet")}
    assert {file.stem for file in finished} == {"unit-3", "unit-4"}
    (out / "rows" / "first" / ".unit-6.parquet.unfinished").write_bytes(b"PAR1 half")
    inside = out / "another"  # a run with a lock of its own
    inside.mkdir()
    (inside / ".lock").touch()
    (inside / ".unit-1.parquet.unfinished").touch()
    with pytest.raises(RunDirectoryError, match="is not finished"):
        load_result(out)

    gate.touch()
    settings = Settings(gate=str(gate))
    result = run(example(settings), small_bridge, out=out)
    assert_same(result, run(example(replace(settings)), small_bridge))
    assert all(file.stat().st_mtime_ns == when for file, when in finished.items())
    assert [file.parent for file in out.rglob("*.unfinished")] == [inside]


def test_a_second_process_is_refused_and_told_who_is_first(
    halfway: tuple[BaseProcess, Path, Path],
) -> None:
    process, out, gate = halfway
    with pytest.raises(RunDirectoryError, match=f"written by process {process.pid} on "):
        run(example(Settings(gate=str(gate))), small_bridge, out=out)
    gate.touch()
    process.join()
    assert process.exitcode == 0
    load_result(out)


def test_a_unit_that_fails_says_which_and_keeps_the_others(tmp_path: Path) -> None:
    def stage(bridge: TransformerBridge, settings: Settings, rows: object) -> list[Unit]:
        bad = Unit("second", "bad", fails, {"start": 9})
        return [*first_stage(bridge, settings, rows), bad]

    broken = replace(example(), stages={"only": stage})
    with pytest.raises(ArithmeticError, match="cannot do 9") as caught:
        run(broken, small_bridge, out=tmp_path)
    assert caught.value.__notes__ == ["while measuring second/bad"]
    assert len(list(tmp_path.glob("rows/first/*.parquet"))) == 4


class TwoWorkers(Executor):
    """Of three units the first fails, while the second is measured and the third waits."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.submitted: list[tuple[Future, Callable, tuple]] = []
        self.work = Thread(target=self._work)

    def submit(self, fn: Callable, /, *args: object, **_: object) -> Future:
        self.submitted.append((Future(), fn, args))
        if len(self.submitted) == 3:
            self.work.start()
        return self.submitted[-1][0]

    def _work(self) -> None:
        (first, *_), (second, measure, unit), (third, *_) = self.submitted
        second.set_running_or_notify_cancel()
        first.set_exception(self.error)
        while not third.cancelled():
            time.sleep(0.01)
        second.set_result(measure(*unit))


@pytest.mark.parametrize(
    ("error", "kept"), [(ArithmeticError(), ["unit-4"]), (KeyboardInterrupt(), [])]
)
def test_a_unit_that_has_begun_is_kept_if_another_fails(
    tmp_path: Path, error: BaseException, kept: list[str]
) -> None:
    workers = TwoWorkers(error)
    with pytest.raises(type(error)) as caught:
        run(example(Settings(starts=(3, 4, 5))), small_bridge, out=tmp_path, executor=workers)
    workers.work.join()
    assert caught.value is error
    assert [file.stem for file in tmp_path.glob("rows/first/*.parquet")] == kept


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path, expected: Result) -> None:
    run(example(), small_bridge, out=tmp_path)
    (missing,) = tmp_path.glob("rows/first/unit-4.parquet")
    missing.unlink()
    kept = {file: file.read_bytes() for file in tmp_path.glob("rows/*/*.parquet")}
    with files_of_at_most(1024), pytest.raises(OSError, match="File too large"):
        run(example(), small_bridge, out=tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.glob("rows/*/*")} == kept
    assert_same(run(example(), small_bridge, out=tmp_path), expected)


def test_two_units_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="occur twice: first/unit-3"):
        run(example(Settings(starts=(3, 3))), small_bridge)
    again = replace(example(), stages={**example().stages, "again": example().stages["first"]})
    with pytest.raises(ValueError, match="occur twice: first/unit-3"):
        run(again, small_bridge)


def test_two_units_whose_files_would_be_one_where_case_does_not_count_are_refused() -> None:
    def stage(*_: object) -> list[Unit]:
        return [Unit("first", name, counts, {"start": 5}) for name in ("unit-A", "unit-a")]

    with pytest.raises(ValueError, match="occur twice: first/unit-A, first/unit-a"):
        run(replace(example(), stages={"first": stage}), small_bridge)


def test_whoever_stops_the_analysis_is_told_what_is_kept(tmp_path: Path) -> None:
    def stopped(_settings: object, _tables: object) -> Analysis:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        run(replace(example(), analyse=stopped), small_bridge, out=tmp_path)
    kept = len(list(tmp_path.glob("rows/*/*.parquet")))
    assert stop.value.__notes__ == [
        f"{kept} of {kept} units kept in {tmp_path}; the same command continues"
    ]


def test_who_stops_a_run_that_goes_on_before_its_first_stage_reads_what_is_kept(
    tmp_path: Path,
) -> None:
    def stopped(*_: object) -> list[Unit]:
        raise KeyboardInterrupt

    run(example(), small_bridge, out=tmp_path)
    kept = len(list(tmp_path.glob("rows/*/*.parquet")))
    with pytest.raises(KeyboardInterrupt) as stop:
        run(replace(example(), stages={"first": stopped}), small_bridge, out=tmp_path)
    assert stop.value.__notes__ == [f"{kept} units kept in {tmp_path}; the same command continues"]


def test_a_result_that_no_directory_has_kept_may_be_saved(tmp_path: Path) -> None:
    found = run(example(), small_bridge)
    found.save(str(tmp_path))
    loaded = load_result(tmp_path)
    assert_same(loaded, found)
    assert loaded.settings == found.settings
    loaded.save(tmp_path)
    with pytest.raises(RunDirectoryError, match="with other settings"):
        run(example(Settings(starts=(3,))), small_bridge).save(tmp_path)


def test_a_result_does_not_hide_damaged_rows_of_its_run(tmp_path: Path) -> None:
    found = run(example(), small_bridge, out=tmp_path)
    rows = next(tmp_path.glob("rows/*/*.parquet"))
    rows.write_bytes(rows.read_bytes()[:-9])
    with pytest.raises(RunDirectoryError, match="damaged"):
        found.save(tmp_path)
    assert rows.exists()
    with pytest.raises(RunDirectoryError, match="damaged"):
        load_result(tmp_path)


def test_progress_counts_what_was_finished_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(example(), small_bridge, out=tmp_path, progress=False)
    assert capsys.readouterr().err == ""
    run(example(), small_bridge, out=tmp_path)
    shown = capsys.readouterr().err
    assert "example, first" in shown
    assert "4 units, 4 of them kept" in shown


def test_a_finding_shows_a_figure_that_is_drawn(tmp_path: Path) -> None:
    plan = example()

    def analyse(settings: Settings, rows: object) -> Analysis:
        found = plan.analyse(settings, rows)
        (finding, *_) = found.verdicts
        return replace(found, verdicts=(replace(finding, figure="nope"),))

    with pytest.raises(ValueError, match="names the figure 'nope', and the analysis draws"):
        run(replace(plan, analyse=analyse), small_bridge, out=tmp_path / "run")


def test_settings_are_a_dataclass() -> None:
    with pytest.raises(TypeError, match="settings must be an instance of a dataclass"):
        run(replace(example(), settings={"starts": [1]}), small_bridge)
