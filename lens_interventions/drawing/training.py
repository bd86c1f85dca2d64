"""How a training went."""

from typing import TYPE_CHECKING

from .colours import LINES
from .theme import ThemeName, template

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def draw_training(
    curve: "pd.DataFrame",
    held_out: "pd.DataFrame",
    *,
    title: str,
    theme: ThemeName = "light",
) -> "go.Figure":
    """The change of the loss over the steps, on each step's text and on held-out text.

    Both tables have the columns step, loss, clean_loss and change.

    Raises `ValueError` for an unknown theme.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for frame, name, mode, colour in (
        (curve, "text of the step", "lines", LINES[0]),
        (held_out, "held-out text", "lines+markers", LINES[1]),
    ):
        figure.add_scatter(
            x=frame["step"].tolist(),
            y=frame["change"].tolist(),
            customdata=frame[["loss", "clean_loss"]].to_numpy().tolist(),
            name=name,
            mode=mode,
            line={"color": colour, "width": 1 if mode == "lines" else 2.5},
            opacity=0.6 if mode == "lines" else 1,
            hovertemplate=(
                f"{name}, step %{{x}}<br>change %{{y:+.4f}} nats a token<br>"
                "%{customdata[0]:.4f} with the patch, %{customdata[1]:.4f} without<extra></extra>"
            ),
        )
    figure.add_hline(y=0, line={"dash": "dot", "width": 1})
    figure.update_layout(
        template=template(theme),
        title=title,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    figure.update_xaxes(title="steps made")
    figure.update_yaxes(title="loss minus that without a patch, nats a token (less is better)")
    return figure
