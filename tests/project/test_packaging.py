"""What a user installs: pins, public names, a light import, the files of wheel and sdist."""

import ast
import email
import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lens_interventions
from tests.support.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {
    requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])
}


def test_every_public_name_is_there_and_documented():
    stub = ast.parse((ROOT / "lens_interventions" / "__init__.pyi").read_text())
    names = {
        alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert names
    assert names == set(lens_interventions.__all__)
    # A submodule is no attribute until something has imported it.
    assert {"plots", "behaviour", "experiments"} <= names
    undocumented = [name for name in names if not getattr(lens_interventions, name).__doc__]
    assert not undocumented


LOADED = """
import sys
before = set(sys.modules)
import {}
print(*{{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names)
"""


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("lens_interventions", set()),
        # What typer itself needs differs from version to version.
        ("lens_interventions.cli", {"typer", "click", "rich", "shellingham", "annotated_doc"}),
    ],
)
def test_import_is_light(module, others):
    loaded = subprocess.run(
        [sys.executable, "-c", LOADED.format(module)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "lens_interventions" in loaded
    assert set(loaded) <= {"lens_interventions", "lazy_loader", "typing_extensions"} | others


def wait_until_files_are_later(folder):
    """Until a file written now is later than one written before: a second on some systems."""
    clock = folder / "clock"
    clock.touch()
    before = clock.stat().st_mtime_ns
    while clock.stat().st_mtime_ns == before:
        time.sleep(0.005)
        clock.touch()


def test_make_does_again_only_what_changed(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / ".venv" / "bin"
    for directory in ("lens_interventions", "tests", "results", "report", ".venv/bin"):
        (tmp_path / directory).mkdir(parents=True)
    stored = tmp_path / "results" / "result.json"
    stored.touch()
    for name in ("a", "b"):
        (tmp_path / "lens_interventions" / f"{name}.py").touch()
    for name in ("python", "ruff", "mypy", "lens-interventions"):
        tool = tools / name
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)

    def make(target):
        done = subprocess.run(
            ["make", target], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        wait_until_files_are_later(tmp_path)
        return [line.split()[0] for line in done.stdout.splitlines() if "/bin/" in line]

    ran = [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python"]
    assert make("test")[-4:] == ran
    (tmp_path / "lens_interventions" / "__pycache__").mkdir()  # as an import does
    assert make("test") == []
    (tmp_path / "lens_interventions" / "b.py").unlink()
    assert make("test") == ran
    assert make("test") == []
    stored.touch()
    assert make("test") == ran
    assert make("test") == []
    (tmp_path / "pyproject.toml").touch()  # such as other settings of ruff
    assert make("test")[-4:] == ran
    assert make("demo")[-1:] == [".venv/bin/lens-interventions"]
    assert make("demo") == []
    (tmp_path / "lens_interventions" / "a.py").touch()
    assert make("demo") == [".venv/bin/lens-interventions"]


def test_no_command_of_make_is_too_long_for_the_shell():
    """Make gives a line to the shell as one argument, of which Linux takes 128 KiB."""
    said = subprocess.run(
        ["make", "--dry-run", "--always-make", "lint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "ruff" in said
    assert max(map(len, said.splitlines())) < 2**17


def build(root, target, folder):
    """The one file that a build of a source tree leaves."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder],
        cwd=root,
        capture_output=True,
        check=True,
    )
    (built,) = folder.iterdir()
    return built


def contents(wheel):
    """The files of a wheel and their bytes, less its list of itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "RECORD" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The source distribution, as its receiver has it."""
    sdist = build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def test_wheel_carries_types_stub_and_licence_but_no_tests(wheel):
    files = set(contents(wheel))
    assert {"lens_interventions/py.typed", "lens_interventions/__init__.pyi"} <= files
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert {name.split("/")[0].split("-")[0] for name in files} == {"lens_interventions"}
    modules = {str(path.relative_to(ROOT)) for path in files_of(ROOT / "lens_interventions")}
    assert modules == {name for name in files if name.startswith("lens_interventions/")}


def files_of(folder):
    """The files of a folder that are not made by running them."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    ]


def test_wheel_says_what_it_needs(wheel):
    files = contents(wheel)
    (metadata,) = (
        email.message_from_bytes(data) for name, data in files.items() if "METADATA" in name
    )
    assert metadata["Version"] == lens_interventions.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    needed = map(Requirement, metadata.get_all("Requires-Dist"))
    assert {canonicalize_name(need.name): need.specifier for need in needed if not need.marker} == {
        canonicalize_name(name): need.specifier for name, need in REQUIREMENTS.items()
    }
    (scripts,) = (data.decode() for name, data in files.items() if "entry_points" in name)
    assert "lens-interventions = lens_interventions.cli:main" in scripts


@pytest.mark.parametrize(
    "folder", ["benchmarks", "docs", "lens_interventions", "notebooks", "results", "tests"]
)
def test_sdist_carries_what_the_tests_read(folder, unpacked):
    here = {str(path.relative_to(ROOT)) for path in files_of(ROOT / folder)}
    assert here
    assert here == {str(path.relative_to(unpacked)) for path in files_of(unpacked / folder)}


def test_sdist_carries_nothing_that_was_made_here(unpacked):
    top = {path.name for path in unpacked.iterdir()}
    assert {"README.md", "LICENSE", "Makefile", "mkdocs.yml", "pyproject.toml"} <= top
    assert not top & {".venv", "site", "report", "dist", "build", ".ruff_cache", ".hypothesis"}


def test_a_wheel_made_from_the_sdist_is_the_same(wheel, unpacked, tmp_path):
    assert contents(build(unpacked, "wheel", tmp_path / "again")) == contents(wheel)


def test_import_from_the_wheel_needs_nothing_else_of_the_sources(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import lens_interventions as li; li.NextTokenPatch; print(li.__file__)"
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(shown.strip()).is_relative_to(tmp_path)
