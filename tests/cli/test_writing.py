"""What commands write, by the name of the file."""

import json

import pandas as pd
import plotly.graph_objects as go
import pytest

from lens_interventions.cli.writing import write_table_or_figure

TABLE = pd.DataFrame({"token": [" naïve", "猫", "\r", 'a\r\n"b'], "rank": [0, 3, 5, 7]})


def drawn():
    return go.Figure(go.Scatter(y=[0, 3]))


@pytest.mark.parametrize("name", ["found.csv", "found.JSON"])
def test_a_table_has_its_letters_as_they_are(tmp_path, name):
    path = tmp_path / name
    write_table_or_figure(path, lambda: TABLE, drawn)
    written = path.read_bytes().decode("utf-8")
    assert " naïve" in written
    assert "猫" in written
    read = pd.read_csv(path) if name.endswith("csv") else pd.DataFrame(json.loads(written))
    pd.testing.assert_frame_equal(read, TABLE)


def test_any_other_file_has_the_figure(tmp_path):
    path = tmp_path / "found.html"
    write_table_or_figure(path, lambda: TABLE, drawn)
    assert "Plotly.newPlot" in path.read_text()
