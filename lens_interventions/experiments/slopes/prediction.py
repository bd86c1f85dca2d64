"""The predictions of the selection half: the best strength of each cell and its gain."""

from typing import TypeVar

import pandas as pd

from ..design.sequences import SELECTION
from .settings import SlopesSettings

Numbers = TypeVar("Numbers", float, pd.Series)

CELL = ["material", "layer", "source"]


def predicted(
    settings: SlopesSettings, slopes: pd.DataFrame, curvatures: pd.DataFrame
) -> pd.DataFrame:
    """Each cell whose curvature is known, by material, layer and source.

    Columns: material, layer, source, slope (of the whole selection half), curvature (of losses at
    plus and minus a step), strength (the best one from 0 to `strongest`) and change of the loss at
    it, in nats for each prediction.
    """
    mode = settings.modes[0]
    chosen = slopes[(slopes["half"] == SELECTION) & (slopes["mode"] == mode)]
    sums = chosen.groupby(CELL, sort=False)[["total", "count"]].sum()
    # Half of the rows are of the step up and half of the step down, each with its count.
    curved = curvatures.groupby(CELL, sort=False)[["total", "count"]].sum()
    found = pd.DataFrame(
        {
            "slope": (sums["total"] / sums["count"]).loc[curved.index],
            "curvature": 2 * curved["total"] / curved["count"] / settings.step**2,
        }
    ).reset_index()
    best = settings.best_strength(found["slope"], found["curvature"])
    return found.assign(strength=best, change=promised(found["slope"], found["curvature"], best))


def promised(slope: Numbers, curvature: Numbers, strength: Numbers) -> Numbers:
    """The change of the loss that slope and curvature promise at a strength."""
    return slope * strength + curvature * strength**2 / 2


def chosen_cells(
    settings: SlopesSettings, cells: pd.DataFrame
) -> dict[str, dict[int, dict[str, float]]]:
    """By material, the layers where the true source would gain most, and each source's strength.

    If no weak write would gain, these are the layers of the lowest slopes. A source that would gain
    nothing at a layer is written there at the strength of the bound, because its cost is predicted
    too.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for material, here in cells.groupby("material", sort=False):
        true = here[here["source"] == "true"].sort_values(["change", "slope", "layer"])
        found[str(material)] = {
            int(layer): {
                row.source: float(row.strength) or settings.weak
                for row in here[here["layer"] == layer].itertuples()
            }
            for layer in true["layer"][: settings.cells]
        }
    return found
