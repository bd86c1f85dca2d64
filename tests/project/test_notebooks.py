"""The notebooks run from top to bottom, and what is stored in them is fit to be read.

Stored figures are images, which every viewer shows. `python -m tests.project.test_notebooks` runs
all notebooks and stores what they show; with `03` it runs the third alone. Figures become images by
kaleido, which needs a Chrome. The tests have plotly hand out its own JSON instead.
"""

import base64
import io
import json
import os
import re
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import nbformat
import plotly.graph_objects as go
import plotly.io
import pytest
from nbclient import NotebookClient
from PIL import Image

import lens_interventions as li
from tests.support.pages import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

# Pictures of some ten figures; more makes a repository heavy and a viewer give up.
LARGEST = 600_000

# Imports make a million objects that stay. Looking through them again and again, as Python does by
# default, is a fifth of the time that importing takes.
RARELY = "--IPKernelApp.exec_lines=import gc; gc.set_threshold(100_000)"

EMPTIED = "%reset -f\nimport torch\ntorch.set_grad_enabled(True)\ndel torch"

RENDERER, PLOTLY = "plotly_mimetype", "application/vnd.plotly.v1+json"
FIGURES = {"image/png", PLOTLY}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def run(*notebooks):
    """One after the other, in the folder of the notebooks; an error in a cell is raised.

    All in one kernel, as most of the time to start one goes into imports. Each finds it empty, and
    gradients on.
    """
    where = {"metadata": {"path": str(FOLDER)}}
    joined = nbformat.v4.new_notebook(metadata=notebooks[0].metadata)
    for notebook in notebooks:
        joined.cells += [*notebook.cells, nbformat.v4.new_code_cell(EMPTIED)]
    NotebookClient(
        joined,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        resources=where,
        extra_arguments=[RARELY],
    ).execute()


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kind(output):
    """What a reader sees, whatever numbers are in it."""
    if output.output_type == "stream":
        return output.name
    if output.output_type == "error":
        return "error"
    if FIGURES & set(output.data):
        return "figure"
    return "table" if "text/html" in output.data else "text"


def says_what_it_tries(output):
    """Whether an output has only such lines, which come on a slow machine."""
    lines = output.get("text", "").splitlines()
    return bool(lines) and all(line.startswith("trying ") for line in lines)


def kinds(notebook):
    """The kinds of each cell's outputs; a stream is one, in however many pieces it arrives."""
    found = [
        [kind(output) for output in cell.outputs if not says_what_it_tries(output)]
        for cell in code_cells(notebook)
    ]
    streams = {"stdout", "stderr"}
    return [
        [name for before, name in pairwise([None, *cell]) if name not in streams or name != before]
        for cell in found
    ]


def from_results(notebook):
    """The words and numbers that cells show of stored results, which are the same in each run.

    These are the cells from one that loads a result to the next that loads a model. Figures are not
    among them, as they are stored as images.
    """
    found, stored = [], False
    for cell in code_cells(notebook):
        stored = "load_result(" in cell.source or (stored and "load_model(" not in cell.source)
        if stored:
            found.append("".join(as_read(output) for output in cell.outputs).split())
    return found


def as_read(output):
    """The text of an output; of a table without tags, whose ids differ between runs."""
    if kind(output) == "table":
        return re.sub(r"<style.*?</style>|<.*?>", " ", output.data["text/html"], flags=re.DOTALL)
    return "" if kind(output) == "figure" else output.get("text") or output.data["text/plain"]


def words(notebook):
    """Everything but pictures, in which any letters may follow each other."""
    parts = [cell.source for cell in notebook.cells]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            parts += [str(data[name]) for name in data if name not in FIGURES]
            parts.append(output.get("text", ""))
    return "\n".join(parts)


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04"]


@pytest.fixture(scope="module")
def just_run(default_bridge):
    """Every notebook with what it shows now, by its path."""
    # On a new machine the first cells would show how model and lens are made.
    li.default_affine_lens(default_bridge, progress=False)
    notebooks = {path: read(path) for path in NOTEBOOKS}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PLOTLY_RENDERER", RENDERER)
        run(*notebooks.values())
    return notebooks


@pytest.mark.long
@each
def test_it_runs_and_shows_what_is_stored(path, just_run):
    stored, fresh = read(path), just_run[path]
    # What a model measures may round otherwise on another machine.
    assert kinds(fresh) == kinds(stored)
    assert from_results(fresh) == from_results(stored)


def test_stored_results_are_shown_where_they_are_compared():
    assert [path.stem[:2] for path in NOTEBOOKS if any(from_results(read(path)))] == ["03"]


@each
def test_what_is_stored_was_run_once_from_the_top(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@each
def test_what_is_stored_can_be_read(path):
    notebook = read(path)
    found = [name for cell in kinds(notebook) for name in cell]
    assert {"figure", "stdout", "table"} <= set(found)
    assert not {"error", "stderr"} & set(found)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if kind(output) == "figure":
                # A picture shows where plotly's scripts do not run.
                assert "image/png" in output.data
    assert path.stat().st_size < LARGEST


@each
def test_it_says_nothing_of_the_machine_it_was_run_on(path):
    notebook = read(path)
    assert not re.findall(r"(?:/(?:work|tmp|root|home|Users|mnt)\b|[A-Z]:\\)\S*", words(notebook))
    assert "execution" not in json.dumps([dict(cell.metadata) for cell in notebook.cells])


@each
def test_files_that_are_linked_are_there(path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", words(read(path))):
        assert (FOLDER / target).exists()


def store(numbers):
    """Run notebooks, by the beginnings of their names, and store what they show."""
    os.environ["PLOTLY_RENDERER"] = RENDERER
    for path in NOTEBOOKS:
        if not numbers or path.name.startswith(tuple(numbers)):
            notebook = read(path)
            run(notebook)
            # Versions of Python and its kernel differ between machines and say nothing here.
            notebook.metadata["language_info"] = {"name": "python"}
            draw(notebook)
            nbformat.write(notebook, path)


def draw(notebook):
    """Put images in place of plotly's JSON; all in one go, as starting a Chrome takes long."""
    outputs = [
        output
        for cell in code_cells(notebook)
        for output in cell.outputs
        if PLOTLY in output.get("data", {})
    ]
    figures = [go.Figure(output.data[PLOTLY]) for output in outputs]
    with tempfile.TemporaryDirectory() as folder:
        pictures = [Path(folder) / f"{number}.png" for number in range(len(figures))]
        plotly.io.write_images(
            figures,
            pictures,
            width=[figure.layout.width or 900 for figure in figures],
            height=[figure.layout.height or 500 for figure in figures],
        )
        for output, picture in zip(outputs, pictures, strict=True):
            output.data = nbformat.from_dict({"image/png": smaller(picture)})


def smaller(picture):
    """The picture in 256 colours, which takes a quarter of the bytes, in base64."""
    # Of the ways to choose them this keeps thin gradients, such as those of colour bars.
    few = (
        Image.open(picture)
        .convert("RGB")
        .quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    )
    stream = io.BytesIO()
    few.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


if __name__ == "__main__":
    store(sys.argv[1:])
