"""From the rows of the slopes experiment to tables and verdicts."""

from typing import Any

import numpy as np
import pandas as pd

from ...measures.intervals import Interval
from ...measures.verdicts import verdict, visible_by_width
from ..design.contrasts import row_interval
from ..design.simultaneous import simultaneous_band
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .prediction import CELL, chosen_cells, predicted
from .settings import COPIES, SlopesSettings

NO_PATCH = "no patch"

_MAX_T = "max-t bootstrap"


def analyse(settings: SlopesSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    grid = slope_grid(rows["slopes"], settings)
    cells = predicted(settings, rows["slopes"], rows["curvatures"])
    measured = measured_changes(rows["patched"], cells, settings)
    against = measured[measured["minus"] == NO_PATCH].set_index(CELL)
    index = pd.MultiIndex.from_frame(cells[CELL])
    cells = cells.assign(
        **{f"measured_{end}": against[end].reindex(index).to_numpy() for end in _ENDS}
    )
    findings = [
        finding
        for material in dict.fromkeys(grid["material"])
        for finding in _findings(str(material), grid, cells, measured, settings)
    ]
    tables = {"predictions": cells, "slopes": grid, "patched": measured}
    return Analysis(tables, tuple(findings), draw)


_ENDS = ("estimate", "low", "high")


def slope_grid(rows: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """Slopes of every source, and of the true source minus each control, by layer and mode.

    Columns: material, mode, layer, source, minus, estimate, low, high, n. The ends hold for all
    rows of a material at once. All texts count, as nothing is chosen.
    """
    controls = [source for source in settings.sources if source != "true"]
    found = []
    for material, here in rows.groupby("material", sort=False):
        keys = ["mode", "layer", "source"]
        sums = here.groupby([*keys, "cluster"], sort=True)[["total", "count"]].sum().unstack()
        totals, counts = sums["total"], sums["count"].to_numpy(dtype=np.float64)[0]
        cells = [(*key, "") for key in totals.index]
        values = list(totals.to_numpy(dtype=np.float64))
        for mode, layer in dict.fromkeys((mode, layer) for mode, layer, _ in totals.index):
            true = totals.loc[(mode, layer, "true")].to_numpy(dtype=np.float64)
            for control in controls:
                cells.append((mode, layer, "true", control))
                values.append(true - totals.loc[(mode, layer, control)].to_numpy(dtype=np.float64))
        band = simultaneous_band(np.stack(values), counts, settings.resampling)
        table = pd.DataFrame(cells, columns=[*keys, "minus"])
        found.append(
            table.assign(
                material=material,
                estimate=band.estimates,
                low=band.low,
                high=band.high,
                n=band.n,
            )
        )
    columns = ["material", "mode", "layer", "source", "minus", *_ENDS, "n"]
    return pd.concat(found, ignore_index=True)[columns]


def measured_changes(
    rows: pd.DataFrame, cells: pd.DataFrame, settings: SlopesSettings
) -> pd.DataFrame:
    """Patched losses of the report half minus those without a patch, and true minus controls.

    Columns: material, layer, source, strength, minus, predicted, estimate, low, high, level,
    method, n. Each source is written at its own strength.
    """
    known = cells.set_index(CELL)
    found = []
    for (material, layer), here in rows.groupby(["material", "layer"], sort=False):
        sums = here.groupby(["source", "cluster"])[["total", "count"]].sum().unstack()
        counts = sums["count"].to_numpy(dtype=np.float64)[0]
        strengths = here.groupby("source")["strength"].first()
        changes = {
            source: _at(known, (material, layer, source), strengths[source])
            for source in strengths.index
        }
        for source in (name for name in settings.curved_sources if name in strengths):
            for minus in (NO_PATCH, source):
                if minus == "true":
                    continue
                of = "true" if minus != NO_PATCH else source
                totals = sums["total"].loc[of].to_numpy(dtype=np.float64)
                if minus != NO_PATCH:
                    totals = totals - sums["total"].loc[minus].to_numpy(dtype=np.float64)
                interval = settings.resampling.interval(totals, counts)
                found.append(
                    {
                        "material": material,
                        "layer": layer,
                        "source": of,
                        "strength": strengths[of],
                        "minus": minus,
                        "predicted": changes[of] - changes.get(minus, 0.0),
                        **interval.columns(),
                        "level": interval.level,
                        "method": interval.method,
                    }
                )
    return pd.DataFrame(found)


def _at(cells: pd.DataFrame, cell: tuple[Any, ...], strength: float) -> float:
    slope, bend = (float(cells[name][cell]) for name in ("slope", "curvature"))
    return slope * strength + bend * strength**2 / 2


def bound(grid: pd.DataFrame, settings: SlopesSettings) -> Interval:
    """The change of the loss at strength `weak` where the slope is lowest, of rows of one material.

    Every slope lies within its ends at once, so the lowest lies between the lowest of the low ends
    and the lowest of the high ends.
    """
    return _interval(grid, grid, settings)


def bound_of_news(grid: pd.DataFrame, settings: SlopesSettings) -> Interval:
    """The same of the true source minus the control that does best at the same layer and mode."""
    against = grid[grid["minus"] != ""]
    worst = against.groupby(["mode", "layer"])[list(_ENDS)].max()
    return _interval(worst, grid, settings)


def _interval(cells: pd.DataFrame, grid: pd.DataFrame, settings: SlopesSettings) -> Interval:
    estimate, low, high = (settings.weak * float(cells[end].min(skipna=False)) for end in _ENDS)
    method = _MAX_T if np.isfinite(low) else "none"
    n = int(grid["n"].iloc[0])
    return Interval(estimate, low, high, settings.resampling.level, method, n)


_SLOPES = (
    "{what}, {n} texts, {layers} layers, {forms}. To first order: {weak:g} times the slope of the "
    "loss in the strength. The interval is simultaneous: it holds for the lowest slope of the "
    "whole grid of this material, by the max-t bootstrap over texts. "
)
_ANY = (
    "No write of any of the sources, the controls among them, gains more than {most:.2g} nats to "
    "first order; stronger ones bend, as the patched runs show."
)
_NEWS = (
    "The true source minus the control that does best at the same layer, where that is lowest. "
    "The lead may be over a control that does harm."
)
_PATCHED = (
    "{what}: layer {layer}, mode {mode}, strength {strength:.3g}, chosen by slopes and curvatures "
    "of one half of the texts, which predict {predicted:+.2g}. The patched run on the other half, "
    "minus no patch."
)


def _findings(
    material: str,
    grid: pd.DataFrame,
    cells: pd.DataFrame,
    measured: pd.DataFrame,
    settings: SlopesSettings,
) -> list[Finding]:
    here = grid[grid["material"] == material]
    sources = here[here["minus"] == ""]
    what = words(material)
    said = _SLOPES.format(
        what=what[0].upper() + what[1:],
        n=int(here["n"].iloc[0]),
        layers=here["layer"].nunique(),
        forms=f"modes {' and '.join(settings.modes)} of W_E",
        weak=settings.weak,
    )
    most = -bound(sources, settings).low
    layer = next(iter(chosen_cells(settings, cells)[material]))
    run = measured[
        (measured["material"] == material)
        & (measured["layer"] == layer)
        & (measured["source"] == "true")
        & (measured["minus"] == NO_PATCH)
    ].iloc[0]
    return [
        _finding(
            f"To first order, does a write of the true token of strength {settings.weak:g} or less "
            f"lower the loss on {what}?",
            bound(sources[sources["source"] == "true"], settings),
            said + _ANY.format(most=max(most, 0.0)),
            "slopes",
            material,
            settings,
        ),
        _finding(
            f"To first order, does such a write do more than one without news, on {what}?",
            bound_of_news(here, settings),
            said + _NEWS,
            "slopes",
            material,
            settings,
        ),
        _finding(
            f"Does the write of the true token that promises most lower the loss on {what}?",
            row_interval(run.to_dict()),
            _PATCHED.format(
                what=what[0].upper() + what[1:],
                layer=layer,
                mode=settings.modes[0],
                strength=run["strength"],
                predicted=run["predicted"],
            ),
            "gain",
            material,
            settings,
        ),
    ]


def words(material: str) -> str:
    """A material in words."""
    if material == COPIES:
        return "second copies of random tokens"
    return material.replace("python_reference", "the Python reference").replace("_", " ")


def _finding(
    question: str,
    interval: Interval,
    method: str,
    figure: str,
    material: str,
    settings: SlopesSettings,
) -> Finding:
    judged = verdict(
        interval,
        smallest_effect=settings.smallest(material),
        lower_is_better=True,
        units="nats",
        # An interval that holds for a whole grid is wider than its lowest slope alone would have.
        smallest_visible=None if interval.method == _MAX_T else visible_by_width(interval),
    )
    return Finding(question, judged, method, figure)
