"""What the selection half predicts: the best strength of each cell and what it would gain."""

import numpy as np
import pandas as pd

from ..design.sequences import SELECTION
from .settings import SlopesSettings

CELL = ["material", "layer", "source"]


def predicted(
    settings: SlopesSettings, slopes: pd.DataFrame, curvatures: pd.DataFrame
) -> pd.DataFrame:
    """Each cell whose curvature is known, by material, layer and source.

    Columns: material, layer, source, slope (of the whole selection half), curvature, error,
    strength (the best one from 0 to `strongest`) and change of the loss at it, in nats for each
    prediction.
    """
    mode = settings.modes[0]
    chosen = slopes[(slopes["half"] == SELECTION) & (slopes["mode"] == mode)]
    sums = chosen.groupby(CELL, sort=False)[["total", "count"]].sum()
    curved = curvatures.groupby(CELL, sort=False)[["curvature", "error", "count"]].sum()
    found = pd.DataFrame(
        {
            "slope": (sums["total"] / sums["count"]).loc[curved.index],
            "curvature": curved["curvature"] / curved["count"],
            "error": curved["error"] / curved["count"],
        }
    ).reset_index()
    slope, bend = found["slope"].to_numpy(), found["curvature"].to_numpy()
    best = np.full(len(found), settings.strongest)
    np.divide(-slope, bend, out=best, where=bend > 0)
    best = np.where(slope < 0, np.minimum(best, settings.strongest), 0.0)
    return found.assign(strength=best, change=slope * best + bend * best**2 / 2)


def chosen_cells(
    settings: SlopesSettings, cells: pd.DataFrame
) -> dict[str, dict[int, dict[str, float]]]:
    """By material, the layers where the true source would gain most, and each source's strength.

    Where no weak write would gain, the layers of the lowest slopes. A source that would gain
    nothing at a layer is written there at the strength of the bound: what it costs is predicted
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
