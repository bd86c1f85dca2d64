"""Directories of runs: what is written there, and what is refused."""

import errno
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments import (
    Experiment,
    RunDirectoryError,
    Unit,
    load_result,
    read_tables,
    run,
)
from lens_interventions.experiments.engine.row_files import DamagedFileError, read_rows, write_rows
from lens_interventions.experiments.engine.run_directory import RunDirectory, held_directory
from lens_interventions.experiments.engine.run_header import FORMAT
from tests.support.small_run import (
    Settings,
    assert_same,
    example,
    mean_logits,
    other_bridge,
    small_bridge,
)
from tests.support.tiny import tiny_bridge


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    with pytest.raises(RunDirectoryError, match=r"settings\.starts: \[3\] here, \[3, 4, 5, 6\]"):
        run(example(Settings(starts=(3,))), small_bridge, out=tmp_path)


def test_settings_may_be_corrected_before_anything_is_measured(tmp_path: Path) -> None:
    """As after a mistake in a text file, which the first stage finds."""

    def mistaken(*_: object) -> list[Unit]:
        raise ValueError("the text is empty")

    with pytest.raises(ValueError, match="the text is empty"):
        run(
            replace(example(Settings(starts=(9,))), stages={"first": mistaken}),
            small_bridge,
            out=tmp_path,
        )
    (tmp_path / "files" / "table").mkdir(parents=True)  # made for a unit that keeps a file
    found = run(example(), small_bridge, out=tmp_path)
    assert load_result(tmp_path).settings == found.settings
    for rows in (tmp_path / "rows").rglob("*.parquet"):
        rows.unlink()
    with pytest.raises(RunDirectoryError, match="with other settings"):
        run(example(Settings(starts=(3,))), small_bridge, out=tmp_path)


@dataclass(frozen=True)
class Strengths:
    strengths: tuple[float, ...]


def test_a_number_that_is_written_otherwise_is_named(tmp_path: Path) -> None:
    """Rows are stamped with the digest of what is written, where 1 is not 1.0."""

    def strengths(value: float) -> Experiment:
        return replace(example(), settings=Strengths((value,)), stages={"first": only_unit})

    def only_unit(*_: object) -> list[Unit]:
        return [Unit("first", "unit", mean_logits, {"start": 3, "gate": "."})]

    first = run(strengths(1.0), small_bridge, out=tmp_path)
    with pytest.raises(RunDirectoryError, match=r"strengths: \[1\] here, \[1\.0\] there"):
        run(strengths(1), small_bridge, out=tmp_path)
    assert_same(run(strengths(1.0), small_bridge, out=tmp_path), first)


def test_another_model_is_refused(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    with pytest.raises(
        RunDirectoryError,
        match=r"a run of example on tiny-llama \(.+ weights (\w{8}), .+ this is .+ weights (?!\1)",
    ):
        run(example(), other_bridge, out=tmp_path)


def other_norms() -> TransformerBridge:
    return tiny_bridge("llama", rms_norm_eps=0.1)


def test_the_same_weights_with_another_config_are_refused(tmp_path: Path) -> None:
    """Its norms compute something else, and a table would mix the two models."""
    run(example(), small_bridge, out=tmp_path)
    with pytest.raises(
        RunDirectoryError, match=r"(weights \w{8}, config )(\w{8})\); this is .+\1(?!\2)"
    ):
        run(example(), other_norms, out=tmp_path)


def test_another_kind_of_run_is_called_by_its_name(tmp_path: Path) -> None:
    presets = {"quick": Settings(), "full": Settings(starts=(3,), tags=())}
    quick, full = (replace(example(of), presets=presets) for of in presets.values())
    run(quick, small_bridge, out=tmp_path)
    with pytest.raises(RunDirectoryError) as caught:
        run(full, small_bridge, out=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds a quick run of example; this is a full run of example: choose another "
        "directory"
    )


def test_of_many_settings_that_differ_some_are_named(tmp_path: Path) -> None:
    def header(value: int) -> dict[str, object]:
        settings = {f"s{number:02}": value for number in range(11)}
        named = {"format": FORMAT, "experiment": "example", "model": {}, "versions": {}}
        return {**named, "settings": settings}

    with held_directory(tmp_path, header(0), {}):
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "begun").touch()
    with (
        pytest.raises(RunDirectoryError, match=r"settings\.s07: 1 here, 0 there\n  and 3 more$"),
        held_directory(tmp_path, header(1), {}),
    ):
        pass


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(RunDirectoryError, match=r"holds thesis\.tex and no settings\.json"):
        run(example(), small_bridge, out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", '{"format": "other/1"}', f'{{"format": "{FORMAT}"}}', "[]"])
def test_a_settings_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(RunDirectoryError, match=r"settings\.json"):
        run(example(), small_bridge, out=tmp_path)
    assert (tmp_path / "settings.json").read_text() == text


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


@pytest.mark.parametrize("damage", ["cut", "empty", "plain", "flipped", "directory"])
def test_a_damaged_unit_is_named_set_aside_and_measured_again(tmp_path: Path, damage: str) -> None:
    expected = run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "rows" / "first" / "unit-4.parquet"
    whole = file.read_bytes()
    if damage == "plain":  # a Parquet file, but not of a run
        pd.DataFrame({"start": [4]}).to_parquet(file)
    elif damage == "flipped":
        flip(file, 8 * 40)
    elif damage == "directory":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    with pytest.raises(RunDirectoryError, match=r"unit-4\.parquet is damaged or not"):
        load_result(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"unit-4\.parquet is damaged or not"):
        read_tables(tmp_path)
    with pytest.warns(UserWarning, match=r"unit-4\.parquet\.damaged, and first/unit-4 is measured"):
        assert_same(run(example(), small_bridge, out=tmp_path), expected)
    assert (file.parent / "unit-4.parquet.damaged").exists()
    assert file.read_bytes() == whole
    assert_same(load_result(tmp_path), expected)


def test_no_flipped_bit_passes(tmp_path: Path) -> None:
    file = tmp_path / "unit.parquet"
    write_rows(file, pd.DataFrame({"start": [4, 5], "mean": [0.5, 0.25]}), {"run": "a"})
    for bit in range(0, 8 * file.stat().st_size, 7):
        flip(file, bit)
        with pytest.raises(DamagedFileError):
            read_rows(file)
        flip(file, bit)
    rows, stamp = read_rows(file)
    assert rows["mean"].tolist() == [0.5, 0.25]
    assert stamp["run"] == "a"


@pytest.mark.parametrize("name", ["tables/rows.parquet", "figures/means.json"])
def test_a_flipped_bit_of_a_result_is_found(tmp_path: Path, name: str) -> None:
    run(example(), small_bridge, out=tmp_path)
    flip(tmp_path / name, 8 * 40)
    with pytest.raises(RunDirectoryError, match=f"the checksum of {name}"):
        load_result(tmp_path)


@pytest.mark.parametrize("lost", ["sha256", "tables"])
def test_a_result_that_lost_a_part_is_damaged(tmp_path: Path, lost: str) -> None:
    run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "result.json"
    contents = json.loads(file.read_text())
    del contents[lost]
    file.write_text(json.dumps(contents))
    with pytest.raises(RunDirectoryError, match=f"is damaged .*{lost}"):
        load_result(tmp_path)


@pytest.mark.parametrize("name", ["settings.json", "result.json", "tables/rows.parquet"])
def test_a_directory_where_a_file_belongs_is_damage(tmp_path: Path, name: str) -> None:
    run(example(), small_bridge, out=tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(RunDirectoryError, match="is damaged"):
        load_result(tmp_path)


def test_what_cannot_be_read_is_not_damaged(tmp_path: Path, monkeypatch) -> None:
    """Hours of measurements are not set aside because too many files are open."""
    run(example(), small_bridge, out=tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def refuse(self: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            run(example(), small_bridge, out=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["rows", "rows/first"])
def test_a_file_where_a_directory_belongs_is_named(tmp_path: Path, name: str) -> None:
    run(example(), small_bridge, out=tmp_path)
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).write_text("")
    for call in (load_result, read_tables, lambda out: run(example(), small_bridge, out=out)):
        with pytest.raises(RunDirectoryError, match=f"{name} is not a directory"):
            call(tmp_path)


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


def test_a_text_that_looks_like_a_seal_is_only_a_text(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": ['{"sha256": "' + "ab" * 32 + '"}']})
    write_rows(tmp_path / "a.parquet", rows, {"run": "r"})
    assert read_rows(tmp_path / "a.parquet")[0].equals(rows)


def test_every_damaged_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows" / "first" / "unit-4.parquet"
    file.parent.mkdir(parents=True)
    for content in (b"one", b"two"):
        file.write_bytes(content)
        with pytest.warns(UserWarning, match="is now unit-4.parquet.damaged"):
            RunDirectory(tmp_path, "r").set_damaged_aside()
    assert {each.read_bytes() for each in file.parent.iterdir()} == {b"one", b"two"}


def test_settings_that_were_lost_are_written_again_for_the_same_run(tmp_path: Path) -> None:
    expected = run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "settings.json"
    kept = file.read_text()
    file.write_text(kept[:40])
    with pytest.raises(RunDirectoryError, match=r"is damaged .* remove it, and the run with"):
        run(example(), small_bridge, out=tmp_path)
    file.unlink()
    with pytest.raises(RunDirectoryError, match=r"lost its settings.json, and .* other settings"):
        run(example(Settings(starts=(1, 2))), small_bridge, out=tmp_path)
    assert not file.exists()
    rows = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("rows/*/*.parquet")}
    assert_same(run(example(), small_bridge, out=tmp_path), expected)
    assert file.read_text() == kept
    assert rows == {each: each.stat().st_mtime_ns for each in tmp_path.rglob("rows/*/*.parquet")}


def test_rows_of_the_users_own_are_no_run(tmp_path: Path) -> None:
    file = tmp_path / "rows" / "survey" / "answers.parquet"
    file.parent.mkdir(parents=True)
    pd.DataFrame({"answer": [1, 2]}).to_parquet(file)
    with pytest.raises(RunDirectoryError, match=r"is not a run directory: it holds rows and no"):
        run(example(), small_bridge, out=tmp_path)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [file]


def test_a_damaged_file_whose_unit_is_finished_keeps_its_rows(tmp_path: Path) -> None:
    expected = run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "files" / "first" / "unit-4.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cut")
    with pytest.warns(UserWarning, match="first/unit-4 keeps its rows; remove them to make"):
        assert_same(run(example(), small_bridge, out=tmp_path), expected)


def test_a_damaged_file_beside_the_rows_is_set_aside(tmp_path: Path) -> None:
    expected = run(example(), small_bridge, out=tmp_path)
    whole, cut = (tmp_path / "files" / "first" / f"{name}.safetensors" for name in ("a", "b"))
    whole.parent.mkdir(parents=True)
    save_file({"step": torch.arange(9)}, whole)
    cut.write_bytes(whole.read_bytes()[:50])
    with pytest.warns(UserWarning, match=r"b\.safetensors is damaged .* b\.safetensors\.damaged"):
        assert_same(run(example(), small_bridge, out=tmp_path), expected)
    assert {file.name for file in whole.parent.iterdir()} == {
        "a.safetensors",
        "b.safetensors.damaged",
    }


def test_a_unit_without_rows_changes_no_type_for_a_reader(tmp_path: Path) -> None:
    run(example(), small_bridge, out=tmp_path)
    file = tmp_path / "rows" / "first" / "unit-3.parquet"
    rows, stamp = read_rows(file)
    types = read_tables(tmp_path)["first"].dtypes
    write_rows(file, pd.DataFrame(columns=list(rows)), {**stamp})
    assert read_tables(tmp_path)["first"].dtypes.equals(types)
