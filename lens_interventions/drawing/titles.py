"""Titles of figures: a headline with a line below it, or a heading above a menu."""

import textwrap
from typing import Any

from .labels import markup

LINE = 21  # pixels from one line of a title to the next: 1.3 of its font
_SUBTITLE = 94  # letters of a heading's subtitle in one line, which fit the narrowest figure


def headline(title: str, subtitle: str, width: float) -> list[str]:
    """A title and its subtitle as lines that fit a figure of this width, in pixels."""
    titles = textwrap.wrap(title, max(int((width - 32) / 9.6), 20))
    lines = textwrap.wrap(subtitle, max(int((width - 32) / 6.8), 20))
    return [f"<b>{markup(line)}</b>" for line in titles] + [
        f'<span style="font-size:13px">{markup(line)}</span>' for line in lines
    ]


def title_block(lines: list[str], height: float) -> dict[str, Any]:
    """The layout's title: lines at the top left of a figure of this height."""
    return {
        "text": "<br>".join(lines),
        "font": {"size": 16},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 1 - 26 / height,
        "yref": "container",
        "yanchor": "bottom",
        "pad": {"l": 16},
    }


def heading(text: str, subtitle: str = "") -> dict[str, Any]:
    """A heading at the very top and the plot's left edge, so that a menu has room below it."""
    return {
        "text": text,
        **({"subtitle": {"text": subtitle, "font": {"size": 12}}} if subtitle else {}),
        "font": {"size": 15},
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 12},
    }


def wrapped_heading(text: str, subtitle: str) -> tuple[dict[str, Any], int]:
    """A heading whose subtitle is plain text and is wrapped, and the pixels of its lines."""
    lines = textwrap.wrap(subtitle, _SUBTITLE)
    return heading(text, "<br>".join(map(markup, lines))), LINE * len(lines)
