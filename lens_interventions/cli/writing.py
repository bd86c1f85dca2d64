"""What a command found, written to a file as a table or as a figure."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def write_table_or_figure(
    out: Path, table: "Callable[[], pd.DataFrame]", figure: "Callable[[], go.Figure]"
) -> None:
    """Write the table to a .csv or .json file, in UTF-8, and to any other file the figure."""
    from .._files import csv_text, write_text

    suffix = out.suffix.lower()
    if suffix == ".csv":
        write_text(out, csv_text(table()))
    elif suffix == ".json":
        write_text(out, table().to_json(orient="records", force_ascii=False))
    else:
        from ..plots import save

        save(figure(), out)
