"""Tokens made visible, numbers in few digits, and counted things.

White space is marked, control characters are named, and long tokens are cut.
"""

import html
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_MARKS = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "\\r", "\u00a0": "⍽"}
_MISSING = "–"
_ROUNDING_ERROR = 1e-12
_RUN = re.compile(r"([·␣⏎⇥⍽])\1{3,}")


def visible(text: str) -> str:
    """A token's text with everything in it visible.

    A space becomes `·`, or `␣` in a token of nothing but spaces; a newline `⏎`, a tab `⇥`, a
    carriage return `\\r`, a no-break space `⍽`. Runs of four or more are counted (`␣×8`). Control
    and invisible characters become `<U+200B>`. A token that is only part of a character decodes to
    `�` and stays so; empty text becomes `∅`.
    """
    shown = "".join(_MARKS.get(character) or _named(character) for character in text)
    if not text.strip(" "):
        shown = "␣" * len(text)
    if text and unicodedata.category(text[0]) in ("Mn", "Me"):
        shown = "◌" + shown  # a combining mark needs something to sit on
    return _RUN.sub(lambda run: f"{run[1]}×{len(run[0])}", shown) or "∅"


def shorten(text: str, width: int) -> str:
    """`text`, or its beginning and `…`, in at most `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def markup(text: str) -> str:
    """`text` for a plotly figure.

    Plotly reads HTML tags and entities, TeX between dollar signs, and `%{...}` in templates.
    """
    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "%&#123;")


def _named(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"):
        return f"<U+{ord(character):04X}>"
    return character


def number(value: float) -> str:
    """Three significant digits, and all before the point; a number that rounds to 0 is 0."""
    if not math.isfinite(value):
        return str(rounded(value))
    if abs(value) < _ROUNDING_ERROR:
        return "0"
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def estimate_text(row: Mapping[Any, Any]) -> str:
    """The estimate of a row, with its interval if it has one: a single text has none."""
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    interval = f" [{row['low']:.3g}, {row['high']:.3g}]" if known else ""
    return f"{row['estimate']:.3g}{interval}"


def counted(n: int, noun: str) -> str:
    """`1 text`, `2 texts`: a number of what a noun names, which takes an s in the plural."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """A confidence as it was asked for: `95%`, `99.9%`."""
    return f"{100 * share:g}%"


def capital(text: str) -> str:
    """The text as a sentence begins."""
    return text[0].upper() + text[1:]


def signed(value: float, digits: int = 3) -> str:
    """So many significant digits with a sign."""
    return f"{value:+.{digits}g}".replace("-", "−")


def rounded(value: float) -> float | int | str:
    """Three significant digits, four decimals at most, and all digits before the point."""
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value):
        return int(value)
    digits = 2 - math.floor(math.log10(abs(value)))
    return round(value, min(max(digits, 0), 4))
