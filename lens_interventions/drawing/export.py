"""Figures as files: an HTML page that opens offline, an image, or plotly's JSON."""

import html
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import atomic_file, write_text
from .menu import without_menu

if TYPE_CHECKING:
    import plotly.graph_objects as go

SUFFIXES = (".html", ".json", ".png", ".svg", ".pdf")
CONFIG = {"displaylogo": False, "responsive": True, "scrollZoom": False}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
</head>
<body style="margin: 0; background: {{ background }}">
<div style="overflow-x: auto"><div style="min-width: {{ narrowest }}px">{{ figure }}</div></div>
</body>
</html>
"""
_NARROWEST = 640  # pixels, which titles and legends of figures that adapt are made for
_WIDTH = 1000  # pixels of an image, for figures that otherwise adapt to their place
_SHARP_WIDTH = 4000  # up to which images have two pixels for each of the figure's


def save(figure: "go.Figure", path: str | Path) -> None:
    """Write a figure to the file `path`, in the format of its suffix.

    `.html` is one page that opens offline, with plotly.js inside (5 MB); wide figures scroll.
    `.png`, `.svg` and `.pdf` need kaleido (from the checkout, `pip install ".[figures]"`) and an
    installed Chrome, Chromium or Edge. `.json` is plotly's own format.

    Raises `ValueError` for another suffix; `TypeError` for what is not a figure;
    `RuntimeError` if kaleido or a browser is missing; `OSError` if the file cannot be written.
    """
    if not hasattr(figure, "to_plotly_json"):
        raise TypeError(
            f"expected a figure, got a {type(figure).__name__}: pass what its plot() returns"
        )
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"cannot save a figure as {path.name!r}: use one of {', '.join(SUFFIXES)}")
    if suffix == ".html":
        write_text(path, figure_page(figure))
    elif suffix == ".json":
        write_text(path, figure.to_json())
    else:
        image = _image(figure, suffix.removeprefix("."))
        with atomic_file(path) as temporary:
            temporary.write_bytes(image)


def figure_page(figure: "go.Figure") -> str:
    """A page with one figure and plotly.js, which opens offline."""
    from jinja2 import Template
    from markupsafe import Markup

    title = re.sub(r"<br>.*|<[^>]*>", "", figure.layout.title.text or "lens_interventions")
    return Template(_PAGE, autoescape=True, keep_trailing_newline=True).render(
        title=html.unescape(title),
        narrowest=_NARROWEST,
        background=figure.layout.template.layout.paper_bgcolor or "white",
        figure=Markup(figure.to_html(full_html=False, include_plotlyjs=True, config=CONFIG)),
    )


def require_image_writer(suffix: str) -> None:
    """Raise `RuntimeError` if kaleido, which writes images, is not installed."""
    if importlib.util.find_spec("kaleido") is None:
        raise RuntimeError(
            f'saving {suffix} needs kaleido; from the checkout: pip install ".[figures]", or save '
            "as .html"
        )


def _image(figure: "go.Figure", image_format: str) -> bytes:
    require_image_writer(f".{image_format}")
    from kaleido.errors import BrowserClosedError, BrowserFailedError

    width = figure.layout.width or _WIDTH
    scale = 2 if width <= _SHARP_WIDTH else 1
    try:
        return without_menu(figure).to_image(format=image_format, width=width, scale=scale)
    except (RuntimeError, BrowserFailedError, BrowserClosedError) as error:
        raise RuntimeError(
            f"saving .{image_format} needs Chrome, Chromium or Edge, and none started: install one "
            "(on Debian: apt install chromium), or name it in the variable BROWSER_PATH, or save "
            "as .html"
        ) from error
