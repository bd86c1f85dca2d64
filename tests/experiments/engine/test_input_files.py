"""Files that settings name: a run is of one version of them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import pytest
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.experiments import Analysis, Experiment, RunDirectoryError, Unit, run
from lens_interventions.experiments.engine.input_files import file_field
from lens_interventions.experiments.engine.run_header import read_header
from tests.support.small_run import example, small_bridge


@dataclass(frozen=True)
class Reading:
    file: str | None = file_field()


@dataclass(frozen=True)
class Settings:
    reading: Reading = field(default_factory=Reading)


def reads(bridge: TransformerBridge, file: str, then: str | None) -> pd.DataFrame:
    """What the file says; then it says something else, of the same length."""
    said = Path(file).read_text()
    if then is not None:
        Path(file).write_text(then)
    return pd.DataFrame({"said": [said]})


def reading(file: Path, then: str | None = None) -> Experiment:
    unit = Unit("rows", "unit", reads, {"file": str(file), "then": then})
    return Experiment(
        "reading",
        Settings(Reading(str(file))),
        {"only": lambda *_: [unit]},
        lambda _settings, rows: Analysis(rows, (), lambda _: {}),
    )


def test_a_run_is_not_continued_with_another_file(tmp_path: Path) -> None:
    file, out = tmp_path / "file", tmp_path / "run"
    file.write_text("one")
    run(reading(file), small_bridge, out=out)
    file.write_text("two")
    with pytest.raises(RunDirectoryError, match=rf"files\.{file}: \"3fc4.* here, \"7692.* there"):
        run(reading(file), small_bridge, out=out)
    file.write_text("one")  # written later, but the same
    assert run(reading(file), small_bridge, out=out).to_dataframe()["said"].tolist() == ["one"]


def test_a_file_that_no_setting_names_is_called_by_its_name(tmp_path: Path) -> None:
    file, out = tmp_path / "file", tmp_path / "run"
    file.write_text("one")
    experiment = replace(reading(file), settings=Settings(), files={"the text": str(file)})
    run(experiment, small_bridge, out=out)
    assert list(read_header(out)["files"]) == ["the text"]
    file.write_text("two")
    with pytest.raises(RunDirectoryError, match=r"files\.the text: \"3fc4.* here, \"7692.* there"):
        run(experiment, small_bridge, out=out)


def test_rows_are_not_kept_if_the_file_was_overwritten_meanwhile(tmp_path: Path) -> None:
    file, out = tmp_path / "file", tmp_path / "run"
    file.write_text("one")
    with pytest.raises(RuntimeError, match="file was overwritten during the run"):
        run(reading(file, then="two"), small_bridge, out=out)
    assert not list(out.glob("rows/*/*"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*/absent, which the run reads"):
        run(reading(tmp_path / "absent"), small_bridge)


def test_a_run_without_files_has_the_header_of_runs_before_there_were_any(tmp_path: Path) -> None:
    """Otherwise an unfinished run could not be continued: its rows carry the header's hash."""
    run(example(), small_bridge, out=tmp_path)
    assert list(read_header(tmp_path)) == ["format", "experiment", "settings", "model", "versions"]
