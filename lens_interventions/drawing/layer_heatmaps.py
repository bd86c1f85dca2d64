"""Numbers by layer and column, with a panel for each group of columns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .clipped import clipped_scale
from .labels import markup
from .theme import ThemeName, template
from .titles import heading

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# The text of a figure about a row of a table.
Words = Callable[[dict[Any, Any]], str]

_ABOVE, _BELOW = 90, 90  # pixels


@dataclass(frozen=True)
class LayerPanel:
    """The numbers of one panel.

    Attributes:
        title: over it.
        layers: the layers of the rows, lowest first.
        columns: names of the columns.
        values: a row for each layer; 0 is white.
        hover: the hover of each value, in plotly's markup.
        texts: the text in each cell, if any.
    """

    title: str
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    hover: tuple[tuple[str, ...], ...]
    texts: tuple[tuple[str, ...], ...] | None = None

    @classmethod
    def of(
        cls,
        rows: "pd.DataFrame",
        column: str,
        *,
        title: str,
        value: str = "estimate",
        hover: Words,
        text: Words | None = None,
    ) -> "LayerPanel":
        """A panel of a table that has one row for each `layer` and each value of a column.

        **Arguments:**

        - `column`: the column whose values name the panel's columns, in the order of the table.
        - `title`: over the panel.
        - `value`: the column of the numbers.
        - `hover`, `text`: the hover and the text of a cell, from its row.
        """
        records = rows.to_dict("records")
        cells = {(row["layer"], row[column]): row for row in records}
        layers = sorted({int(row["layer"]) for row in records})
        names = list(dict.fromkeys(row[column] for row in records))
        grid = [[cells[layer, name] for name in names] for layer in layers]
        return cls(
            title=title,
            layers=tuple(layers),
            columns=tuple(name.replace("_", " ") for name in names),
            values=tuple(tuple(float(row[value]) for row in line) for line in grid),
            hover=tuple(tuple(map(hover, line)) for line in grid),
            texts=None if text is None else tuple(tuple(map(text, line)) for line in grid),
        )


def layer_heatmaps(
    panels: Sequence[LayerPanel],
    *,
    title: str,
    unit: str,
    below: str = "",
    theme: ThemeName = "light",
) -> "go.Figure":
    """Heat maps side by side on one colour axis, the highest layer at the top.

    Some numbers may lie beyond the colours, because extreme numbers would leave the rest white. The
    line below the title says how many, after what `below` says.

    Raises `ValueError` for an unknown theme.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1,
        cols=len(panels),
        subplot_titles=[markup(panel.title) for panel in panels],
        column_widths=[len(panel.columns) for panel in panels],
        shared_yaxes=True,
        horizontal_spacing=0.03,
    )
    for place, panel in enumerate(panels):
        figure.add_trace(
            go.Heatmap(
                z=[list(row) for row in panel.values],
                x=[markup(column) for column in panel.columns],
                y=[str(layer) for layer in panel.layers],
                customdata=[list(row) for row in panel.hover],
                hovertemplate="%{customdata}<extra></extra>",
                text=None if panel.texts is None else [list(row) for row in panel.texts],
                texttemplate=None if panel.texts is None else "%{text}",
                textfont={"size": 10},
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
            ),
            row=1,
            col=place + 1,
        )
    figure.update_xaxes(type="category", tickangle=-45, showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_yaxes(title={"text": "layer"}, col=1)
    values = np.array([value for panel in panels for row in panel.values for value in row])
    scale, _, beyond = clipped_scale(values[None])
    end = scale.limit
    n_columns = sum(len(panel.columns) for panel in panels)
    n_layers = max(len(panel.layers) for panel in panels)
    return figure.update_layout(
        title=heading(markup(title), " ".join(filter(None, [markup(below), beyond]))),
        coloraxis={"cmin": -end, "cmax": end, "colorbar": {"title": unit, "thickness": 12}},
        template=template(theme),
        width=max(640, 220 + 52 * n_columns),
        height=_ABOVE + _BELOW + max(200, 18 * n_layers),
        margin={"l": 60, "r": 16, "t": _ABOVE, "b": _BELOW},
    )
