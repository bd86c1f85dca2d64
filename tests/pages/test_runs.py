"""Finding the runs that a page is about."""

from dataclasses import replace
from pathlib import Path

import pytest

from lens_interventions.experiments import load_result
from lens_interventions.pages.runs import find_runs, run_titles
from tests.support.made_up_runs import save_run


def test_runs_are_found_at_any_depth_in_alphabetical_order(tmp_path: Path) -> None:
    for place in ("b/copying", "a/deep/loops", "c"):
        save_run(tmp_path / place, "copying")
    found = find_runs([tmp_path])
    assert list(found.results) == [tmp_path / place for place in ("a/deep/loops", "b/copying", "c")]
    assert found.unreadable == {}


def test_a_run_without_a_result_is_unfinished(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_run(tmp_path / name, "copying")
    (tmp_path / "b" / "result.json").unlink()
    found = find_runs([tmp_path])
    assert list(found.results) == [tmp_path / "a"]
    assert "is not finished" in found.unreadable[tmp_path / "b"]


def test_directories_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "b", "loops")
    (tmp_path / "runs" / "b" / "result.json").unlink()
    with pytest.raises(ValueError, match=r"no finished run in .*/runs(.|\n)*b is not finished"):
        find_runs([tmp_path / "runs"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_runs([tmp_path / "nowhere"])


def test_a_run_is_called_by_its_experiment_and_a_directory_of_another_name(tmp_path: Path) -> None:
    for name in ("copying", "again"):
        save_run(tmp_path / name, "copying")
    titles = run_titles({tmp_path / n: load_result(tmp_path / n) for n in ("copying", "again")})
    assert list(titles.values()) == ["Copying", "Copying (again)"]


def test_runs_of_one_name_are_told_apart_by_their_models_or_paths(tmp_path: Path) -> None:
    for place in ("a/copying", "b/copying", "b/loops"):
        save_run(tmp_path / place, place.split("/")[1])
    results = find_runs([tmp_path]).results
    one, two, loops = (tmp_path / place for place in ("a/copying", "b/copying", "b/loops"))
    model = results[one].header["model"]["name"]
    assert run_titles(results) == {
        one: f"Copying, {model}, {one}",
        two: f"Copying, {model}, {two}",
        loops: "Loops",
    }
    header = results[two].header
    header = {**header, "model": {**header["model"], "name": "another model"}}
    titles = run_titles({**results, two: replace(results[two], header=header)})
    assert [titles[one], titles[two]] == [f"Copying, {model}", "Copying, another model"]
