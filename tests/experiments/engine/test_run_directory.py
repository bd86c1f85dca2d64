"""Directories of runs: what is written there, and what is refused."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lens_interventions.experiments import RunDirectoryError, run
from tests.support.small_run import Settings, example, other_bridge, small_bridge


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


def test_settings_are_readable_json(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    header = json.loads((tmp_path / "settings.json").read_text())
    assert header["experiment"] == "example"
    assert header["settings"] == {"starts": [3, 4, 5, 6], "gate": ".", "tags": [["a", 1]]}
