"""Pieces of a report's page, as HTML."""

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import pandas as pd

from ...experiments import Finding
from ...measures.verdicts import Verdict

# Rows of a table that are shown; the rest is in its file.
_ROWS = 80
SAMPLE_COLUMNS = frozenset({"condition", "prompt", "before", "first_round", "again"})
"""A table with these columns holds samples."""

_SVG_WIDTH, _SVG_HEIGHT, _MARGIN = 400, 36, 8


def finding(found: Finding, target: str, *, with_method: bool) -> str:
    """Question, verdict, number with its interval, and the interval drawn."""
    verdict = found.verdict
    method = f'<p class="soft">{escape(found.method)}</p>' if with_method else ""
    link = "" if with_method else f' <a href="#{target}">Figure and method</a>'
    return (
        f'<div class="finding {verdict.outcome.replace(" ", "-")}">'
        f'<p class="question">{escape(found.question)}</p>'
        f'<p><span class="verdict">{escape(verdict.words)}</span>: {number(verdict)}.{link}</p>'
        f"{strip(verdict)}{method}</div>"
    )


def number(verdict: Verdict) -> str:
    """The estimate and its interval, with units."""
    interval = verdict.interval
    units = f" {escape(verdict.units)}" if verdict.units else ""
    if interval.method == "none":
        return f"{signed(interval.estimate)}{units} (no interval, n = {interval.n})"
    return (
        f"{signed(interval.estimate)}{units} "
        f"[{signed(interval.low)}, {signed(interval.high)}] "
        f"({100 * interval.level:g}% {escape(interval.method)}, n = {interval.n})"
    )


def strip(verdict: Verdict) -> str:
    """The interval beside zero and the range that counts as no effect, as a small drawing."""
    interval, margin = verdict.interval, verdict.smallest_effect
    if not all(map(math.isfinite, (interval.estimate, interval.low, interval.high))):
        return ""
    reach = 1.15 * max(abs(interval.low), abs(interval.high), abs(interval.estimate), 1.6 * margin)

    def x(value: float) -> float:
        return _MARGIN + (value / reach + 1) / 2 * (_SVG_WIDTH - 2 * _MARGIN)

    better = "left" if verdict.lower_is_better else "right"
    label = (
        f"{signed(interval.estimate)}, interval {signed(interval.low)} to "
        f"{signed(interval.high)}; no effect is within {margin:g} of zero"
    )
    return (
        f'<svg class="strip" viewBox="0 0 {_SVG_WIDTH} {_SVG_HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">'
        f'<rect x="{x(-margin):.1f}" y="4" width="{x(margin) - x(-margin):.1f}" height="16" '
        'fill="#e6e9ee"/>'
        f'<line x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="2" y2="22" stroke="#59616d"/>'
        f'<line x1="{x(interval.low):.1f}" x2="{x(interval.high):.1f}" y1="12" y2="12" '
        'stroke="var(--colour)" stroke-width="4"/>'
        f'<circle cx="{x(interval.estimate):.1f}" cy="12" r="5" fill="var(--colour)"/>'
        f'<text x="{x(0.0):.1f}" y="33" text-anchor="middle">0</text>'
        f'<text x="{_MARGIN if better == "left" else _SVG_WIDTH - _MARGIN}" y="33" '
        f'text-anchor="{"start" if better == "left" else "end"}">'
        f"{'← better' if better == 'left' else 'better →'}</text></svg>"
    )


def signed(value: float) -> str:
    """Three digits with a sign."""
    return f"{value:+.3g}".replace("-", "−")


def table(rows: pd.DataFrame) -> str:
    """A table, numbers with three digits; long ones are cut, and say so."""
    words = [not pd.api.types.is_numeric_dtype(rows[column]) for column in rows]
    head = "".join(
        f"<th{_class(word)}>{escape(str(column).replace('_', ' '))}</th>"
        for column, word in zip(rows, words, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_class(word)}>{escape(_cell(value))}</td>"
            for value, word in zip(row, words, strict=True)
        )
        + "</tr>"
        for row in rows.head(_ROWS).itertuples(index=False)
    )
    rest = len(rows) - _ROWS
    note = f'<p class="soft">and {rest:,} more rows in its file</p>' if rest > 0 else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Nested values as a table of two columns."""
    rows = "".join(
        f'<tr><td class="word">{escape(name)}</td><td class="word">{escape(value)}</td></tr>'
        for name, value in _flat(values)
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def samples(rows: pd.DataFrame) -> str:
    """Sampled texts by prompt, loops marked."""
    parts = []
    for prompt, group in rows.groupby("prompt", sort=False):
        conditions = "".join(_sample(row) for row in group.to_dict("records"))
        n_loops = int((group["first_round"].str.len() > 0).sum())
        parts.append(
            f"<details><summary>{escape(str(prompt))} "
            f'<span class="soft">{n_loops} of {len(group)} end in a loop</span></summary>'
            f"{conditions}</details>"
        )
    key = (
        '<p class="key soft">Marked where a text ends in a loop: <mark>first round</mark>'
        '<mark class="again">and again</mark>.</p>'
    )
    return key + "".join(parts)


def _sample(row: Mapping[Any, Any]) -> str:
    looped = ""
    if row["first_round"]:
        looped = (
            f"<mark>{escape(row['first_round'])}</mark>"
            f'<mark class="again">{escape(row["again"])}</mark>'
        )
    return (
        f'<div class="sample"><p class="soft">{escape(row["condition"])}</p>'
        f'<div class="text"><span class="prompt">{escape(row["prompt"])}</span>'
        f"{escape(row['before'])}{looped}</div></div>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", str(value)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}".replace("-", "−")
    return str(value)


def _class(word: bool) -> str:
    return ' class="word"' if word else ""
