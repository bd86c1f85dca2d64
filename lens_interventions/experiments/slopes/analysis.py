"""From the rows of the slopes experiment to tables and verdicts."""

from typing import Any

import pandas as pd

from ...drawing.labels import capital, signed
from ..design.contrasts import Contrast, mean_contrast, row_interval
from ..design.findings import Asked, judged
from ..design.rows_of_sums import rows_where
from ..engine.results import Analysis, Tables
from .bounds import ENDS, band_table, lowest, sided, sums_by, worst
from .ceiling import asked_of_ceiling, ceiling_table
from .figures import draw
from .findings import asked, words
from .heads import asked_of_heads, head_table, kind_table
from .kept_rows import kept_rows
from .prediction import CELL, chosen_cells, predicted, promised
from .rescue import asked_of_rescue, rescue_table
from .settings import SlopesSettings

UNPATCHED = "no patch"


def analyse(settings: SlopesSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    grid = slope_grid(rows["slopes"], settings)
    cells = predicted(settings, rows["slopes"], rows["curvatures"])
    measured = measured_changes(rows["patched"], cells, settings)
    against = measured[measured["minus"] == UNPATCHED].set_index(CELL)
    index = pd.MultiIndex.from_frame(cells[CELL])
    cells = cells.assign(
        **{f"measured_{end}": against[end].reindex(index).to_numpy() for end in ENDS}
    )
    heads = head_table(rows["heads"], settings)
    tables = {
        "predictions": cells,
        "slopes": grid,
        "patched": measured,
        "rescue": rescue_table(rows["rescue"], settings),
        "heads": heads,
        "kinds": kind_table(rows["heads"], heads, settings),
        "ceiling": ceiling_table(rows["ceiling"], settings),
        **kept_rows(rows, heads),
    }
    questions = [
        question
        for material in dict.fromkeys(grid["material"])
        for question in _asked(str(material), grid, cells, measured, settings)
    ]
    questions += asked_of_rescue(tables["rescue"], settings)
    questions += asked_of_heads(tables["kinds"], settings)
    questions += asked_of_ceiling(tables["ceiling"], rows["ceiling"], settings)
    return Analysis(tables, judged(questions), draw)


def slope_grid(rows: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """Slopes of every source, and of the true source minus each control, by layer and mode.

    Columns: material, mode, layer, source, minus, estimate, low, high, p_value, n. Ends and
    p-values hold for all rows of a material at once. All texts count, as nothing is chosen.
    """
    keys = ["mode", "layer", "source"]
    found = []
    for material, here in rows.groupby("material", sort=False):
        totals, counts = sums_by(here, keys)
        cells = {(*cell, ""): total for cell, total in totals.items()}
        cells |= {
            (mode, layer, "true", control): totals[mode, layer, "true"] - total
            for (mode, layer, control), total in totals.items()
            if control != "true"
        }
        table = pd.DataFrame(
            [(material, *cell) for cell in cells], columns=["material", *keys, "minus"]
        )
        found.append(band_table(table, list(cells.values()), counts, settings.resampling))
    return pd.concat(found, ignore_index=True)


def measured_changes(
    rows: pd.DataFrame, cells: pd.DataFrame, settings: SlopesSettings
) -> pd.DataFrame:
    """Patched losses of the report half minus those without a patch, and true minus controls.

    Columns: material, layer, source, strength, minus, predicted, and those of `Contrast.columns`.
    Each source is written at its own strength.
    """
    known = cells.set_index(CELL)
    found = []
    for (material, layer), here in rows.groupby(["material", "layer"], sort=False):
        sums, counts = sums_by(here, ["source"])
        strengths = here.groupby("source")["strength"].first()
        changes = {
            source: _at(known, (material, layer, source), strengths[source])
            for source in strengths.index
        }
        for source in (name for name in settings.curved_sources if name in strengths):
            for of, minus in [(source, UNPATCHED), *[("true", source)] * (source != "true")]:
                totals = sums[of] - sums.get(minus, 0.0)
                change = mean_contrast(totals, settings.resampling, counts)
                found.append(
                    {
                        "material": material,
                        "layer": layer,
                        "source": of,
                        "strength": strengths[of],
                        "minus": minus,
                        "predicted": changes[of] - changes.get(minus, 0.0),
                        **change.columns(),
                    }
                )
    return pd.DataFrame(found)


def _at(cells: pd.DataFrame, cell: tuple[Any, ...], strength: float) -> float:
    slope, bend = (float(cells[name][cell]) for name in ("slope", "curvature"))
    return promised(slope, bend, strength)


def bound(grid: pd.DataFrame, settings: SlopesSettings) -> Contrast:
    """The change of the loss at strength `weak` where the slope is lowest, of one material."""
    return lowest(sided(grid), grid, settings, settings.weak)


def bound_of_news(grid: pd.DataFrame, settings: SlopesSettings) -> Contrast:
    """The same of the true source minus the control that does best at the same layer and mode."""
    against = worst(grid[grid["minus"] != ""], ["mode", "layer"])
    return lowest(against, grid, settings, settings.weak)


_SLOPES = (
    "{what}, {n} texts, {layers} layers, {forms}. To first order: {weak:g} times the slope of the "
    "loss in the strength. The interval is simultaneous: it holds for the lowest slope of the "
    "whole grid of this material, by the max-t bootstrap over texts. "
)
_ANY = (
    "So to first order no weak write of any of these forms, controls among them, gains more than "
    "{most:.2g} nats; stronger ones bend, as the patched runs show."
)
_NEWS = (
    "The true source minus the control that does best at the same layer, where that is lowest. "
    "The lead may be over a control that does harm."
)
_PATCHED = (
    "{what}: layer {layer}, mode {mode}, strength {strength:.3g}, chosen by slopes and curvatures "
    "of one half of the texts, which predict {predicted}. The patched run on the other half, "
    "minus no patch."
)


def _asked(
    material: str,
    grid: pd.DataFrame,
    cells: pd.DataFrame,
    measured: pd.DataFrame,
    settings: SlopesSettings,
) -> list[Asked]:
    here = grid[grid["material"] == material]
    sources = here[here["minus"] == ""]
    what = words(material)
    said = _SLOPES.format(
        what=capital(what),
        n=int(here["n"].iloc[0]),
        layers=here["layer"].nunique(),
        forms=f"modes {' and '.join(settings.modes)} of {settings.embedding}",
        weak=settings.weak,
    )
    most = -bound(sources, settings).interval.low
    layer = next(iter(chosen_cells(settings, cells)[material]))
    place = {"material": material, "layer": layer, "source": "true", "minus": UNPATCHED}
    run = rows_where(measured, **place).iloc[0].to_dict()
    return [
        asked(
            f"Does the write of the true token that promises most lower the loss on {what}?",
            Contrast(row_interval(run), run["p_value"]),
            _PATCHED.format(
                what=capital(what),
                layer=layer,
                mode=settings.modes[0],
                strength=run["strength"],
                predicted=signed(float(run["predicted"]), 2),
            ),
            "gain",
            material,
            settings,
        ),
        asked(
            f"To first order, does a write of the true token of strength {settings.weak:g} or less "
            f"lower the loss on {what}?",
            bound(sources[sources["source"] == "true"], settings),
            said + _ANY.format(most=max(most, 0.0)),
            "slopes",
            material,
            settings,
        ),
        asked(
            f"To first order, does such a write do more than one without news, on {what}?",
            bound_of_news(here, settings),
            said + _NEWS,
            "slopes",
            material,
            settings,
        ),
    ]
