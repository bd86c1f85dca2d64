"""The title of a figure of an experiment."""

from typing import Any


def heading(text: str) -> dict[str, Any]:
    """Over the plot from its left edge, and at the very top, so that a menu has room below it."""
    return {
        "text": text,
        "font": {"size": 15},
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 12},
    }
