"""What `make bench` does around measuring: no module is left out, goals are judged, a page is kept.

One benchmark is run, the quickest: that all of them run, `python -m benchmarks --quick` shows.
"""

import copy
import importlib
import subprocess
import sys

import pytest
import torch

from benchmarks.__main__ import NAMES
from benchmarks.results import END, START, Benchmark, Results, Row, number
from benchmarks.scratch_training import bare_loop
from lens_interventions.experiments import ScratchTraining
from lens_interventions.experiments.design.small_networks.shape import Shape
from lens_interventions.experiments.design.small_networks.training import (
    Optimization,
    stream_batches,
)
from lens_interventions.experiments.scratch.training import scratch_run
from tests.support.pages import ROOT

PLUMBING = {"__init__", "__main__", "command", "common", "results"}
RESULTS = Results(
    machine={"processor": "one", "cores": 2},
    quick=False,
    benchmarks=[
        Benchmark(
            name="first",
            claim="It is fast.",
            seconds=61.4,
            rows=[
                Row(work="slow", measured=2.004, unit="x", at_most=1.5),
                Row(work="far", measured=123.4, unit="x", at_least=100),
            ],
        ),
        Benchmark(
            name="second", claim="It is.", seconds=1, rows=[Row(work="a", measured=1, unit="s")]
        ),
    ],
)


def test_every_module_is_named_states_a_claim_and_can_measure():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == PLUMBING | set(NAMES)
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        assert module.__doc__.split("\n")[0].endswith(".")
        assert callable(module.measure)


def test_one_command_measures_one_and_writes_it(tmp_path):
    out, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text(f"above\n{START}\nlast time\n{END}\nbelow\n")
    options = ["effect_map", "--quick", "--out", out, "--page", page]
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    results = Results.load(out)
    assert results.quick
    (benchmark,) = results.benchmarks
    assert benchmark.seconds > 0
    assert all(row.work in shown and row.measured > 0 for row in benchmark.rows)
    assert results.markdown() in page.read_text()


def test_the_bare_loop_does_what_the_trainer_does():
    """Else their speeds would not compare. In float64, after five steps."""
    shape = Shape(n_layers=2, d_model=8, n_heads=2, context=12, d_vocab=20)
    options = Optimization(
        steps=5, learning_rate=1e-2, warm_up=2, weight_decay=0.01, evaluate_every=5
    )
    batches = stream_batches(torch.arange(100) % 20, shape.context, 3, 0)
    trained = scratch_run(
        ScratchTraining(2, 1, "none", 0), shape, options, batches, dtype=torch.float64
    )
    model = copy.deepcopy(trained.network.model)
    begun = model.lm_head.weight.clone()
    trained.to_the_end(lambda _: [{}])
    bare_loop(model, batches, options)
    for name, parameter in trained.network.model.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=0, atol=1e-9)
    assert not torch.allclose(model.lm_head.weight, begun)


def test_an_unknown_benchmark_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "nothing" in done.stderr
    assert "effect_map" in done.stderr


@pytest.mark.parametrize(
    ("measured", "goals", "met"),
    [
        (1.5, {"at_most": 1.5}, "yes"),
        (1.51, {"at_most": 1.5}, "no"),
        (100, {"at_least": 100}, "yes"),
        (99.9, {"at_least": 100}, "no"),
        (0, {}, "–"),
    ],
)
def test_goals_are_judged(measured, goals, met):
    assert Row(work="w", measured=measured, unit="x", **goals).met == met


def test_a_quick_run_is_not_judged():
    cells = Results(machine={}, quick=True, benchmarks=RESULTS.benchmarks).cells()
    assert {row[5] for row in cells} == {"–"}


def test_the_table_names_a_benchmark_once():
    assert RESULTS.cells() == [
        ["first", "slow", "2", "x", "≤ 1.5", "no", "61"],
        ["", "far", "123", "x", "≥ 100", "yes", ""],
        ["second", "a", "1", "s", "–", "–", "1"],
    ]


def test_numbers_are_written_without_exponents():
    assert [number(value) for value in (0.4849, 44.31, 1234.5)] == ["0.485", "44.3", "1234"]


def test_what_is_saved_is_read_back(tmp_path):
    RESULTS.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == RESULTS


def test_the_readme_shows_the_committed_results():
    folder = ROOT / "benchmarks"
    results = Results.load(folder / "results.json")
    assert not results.quick
    text = (folder / "README.md").read_text()
    assert results.markdown() in text
    measured = [benchmark.name for benchmark in results.benchmarks]
    assert measured == [name for name in NAMES if f"**{name}.** Not in the table yet" not in text]


def test_the_readme_has_a_place_for_the_table_and_explains_every_benchmark(tmp_path):
    text = (ROOT / "benchmarks" / "README.md").read_text()
    page = tmp_path / "README.md"
    page.write_text(text)
    RESULTS.write_into(page)
    written = page.read_text()
    assert RESULTS.markdown() in written
    assert written.partition(START)[0] == text.partition(START)[0]
    assert written.partition(END)[2] == text.partition(END)[2]
    assert all(f"**{name}.**" in written.partition(END)[2] for name in NAMES)


def test_a_page_without_a_place_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing marked")
    with pytest.raises(ValueError, match="results"):
        RESULTS.write_into(page)
    assert page.read_text() == "nothing marked"
