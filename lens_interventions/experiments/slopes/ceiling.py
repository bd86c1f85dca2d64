"""What a linear write of the true token could gain, on texts that it was not fitted to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.labels import capital, signed
from ...fitting.linear_ceiling import linear_ceiling
from ...fitting.linear_write import FREE, INCREMENT, WRITES, LinearCeiling, draw_ceilings
from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ..design.findings import Asked
from ..engine.work_units import unit_kind
from .bounds import band_table, lowest, sided, sums_by
from .findings import asked, said, words
from .prediction import promised
from .settings import SlopesSettings
from .unit_texts import Sequences, longest, tokens_of

if TYPE_CHECKING:
    import plotly.graph_objects as go


@unit_kind("linear ceiling")
def measure_ceiling(
    bridge: TransformerBridge,
    texts: Sequences,
    held_out: Sequences,
    curved: Sequence[int],
    layers: Sequence[int],
    step: float,
) -> pd.DataFrame:
    """A row for each held-out text, layer and write: the slope of the sum of its `count` losses.

    Rows also have the curvature of the fitted writes, from losses at strengths `step` and `-step`.
    It is measured only on the held-out texts in `curved`, and is nan elsewhere. `material` says
    what kind of text each one is, and `fitted` how many texts the writes were fitted to.
    """
    found = linear_ceiling(
        bridge,
        tokens_of(bridge, texts),
        tokens_of(bridge, held_out),
        layers=layers,
        max_length=longest([*texts, *held_out]),
        progress=False,
    )
    bends = {
        number: _curvatures(bridge, found, tokens_of(bridge, [held_out[number]])[0], step)
        for number in curved
    }
    return pd.DataFrame(
        [
            {
                "material": sequence["tags"],
                "sequence": sequence["number"],
                "cluster": sequence["cluster"],
                "layer": layer,
                "write": write,
                "total": found.totals[text, w, place],
                "curvature": bends[text][w, place] if text in bends and write != FREE else np.nan,
                "count": found.counts[text],
                "fitted": len(texts),
            }
            for text, sequence in enumerate(held_out)
            for place, layer in enumerate(found.layers)
            for w, write in enumerate((*WRITES, FREE))
        ]
    )


def _curvatures(
    bridge: TransformerBridge, found: LinearCeiling, tokens: torch.Tensor, step: float
) -> np.ndarray:
    """`[write, layer]`, of the sum of the losses of one text."""
    patches = [
        found.patch(layer, strength=strength, write=write)
        for write in WRITES
        for layer in found.layers
        for strength in (step, -step)
    ]
    log_probs = teacher_forced_log_probs(bridge, tokens, [None, *patches])
    clean, *moved = -log_probs.cpu().double().sum((1, 2))
    up, down = torch.stack(moved).view(len(WRITES), len(found.layers), 2).unbind(-1)
    return ((up - 2 * clean + down) / step**2).numpy()


def ceiling_table(rows: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """Slopes of the writes on held-out texts, and what the fitted ones would gain.

    Columns: material, layer, write ("without" the next token, "with" it, "increment", "free"),
    estimate, low, high, p_value, n, curvature, strength (the best one from 0 to `strongest`) and
    change of the loss at it; these three nan for the increment and the free write, which is no
    write that a model could learn. Ends and p-values hold for all rows of a material at once.
    """
    found = []
    for material, here in rows.groupby("material", sort=False):
        totals, counts = sums_by(here, ["layer", "write"])
        cells = dict(totals)
        for layer in dict.fromkeys(layer for layer, _ in totals):
            cells[layer, INCREMENT] = totals[layer, WRITES[1]] - totals[layer, WRITES[0]]
        table = pd.DataFrame(
            [(material, *cell) for cell in cells], columns=["material", "layer", "write"]
        )
        table = band_table(table, list(cells.values()), counts, settings.resampling)
        bent = here.dropna(subset="curvature").groupby(["layer", "write"])
        sums = bent[["curvature", "count"]].sum()
        bend = (sums["curvature"] / sums["count"]).rename("curvature")
        table = table.join(bend, on=["layer", "write"])
        best = settings.best_strength(table["estimate"], table["curvature"])
        change = promised(table["estimate"], table["curvature"], best)
        found.append(table.assign(strength=best.where(change.notna()), change=change))
    return pd.concat(found, ignore_index=True)


_METHOD = (
    "{what}, {n} held-out texts of up to {tokens} tokens, layers {layers}; fitted to {fitted} "
    "others. {weak:g} times the slope of the best linear write of the embeddings of the next token "
    "and of its own, of the residual and of a constant, minus that of the best write without the "
    "next token, both as long as the residual, at the layer where that is lowest. At the best "
    "strength up to {strongest:g}, slope and curvature promise {seeing} with the next token and "
    "{unseeing} without it (layer {at}; strength and layer were chosen on these texts). As a "
    "ceiling only: a write that is free at every position, and so encodes what comes later, has a "
    "slope of {free} at layer {top}. The interval holds for all layers and writes of this text at "
    "once, by the max-t bootstrap over texts. If it helps, a linear write of the next token is "
    "worth training there."
)


def asked_of_ceiling(
    table: pd.DataFrame, rows: pd.DataFrame, settings: SlopesSettings
) -> list[Asked]:
    """For each text, whether the next token lets a linear write lower the loss further.

    `rows` are those of `measure_ceiling`, and `table` their `ceiling_table`.
    """
    found = []
    for material, here in table.groupby("material", sort=False):
        increment = here[here["write"] == INCREMENT].set_index("layer")
        lead = lowest(sided(increment), here, settings, settings.weak)
        unseeing, seeing = (here[here["write"] == write].set_index("layer") for write in WRITES)
        at = int(seeing["change"].argmin())
        free = here[here["write"] == FREE].sort_values("estimate").to_dict("records")[0]
        found.append(
            asked(
                "To first order, could a linear write of the true token lower the loss more than "
                f"one that does not see it, on {words(str(material))}?",
                lead,
                _METHOD.format(
                    what=capital(words(str(material))),
                    n=lead.interval.n,
                    # The first token of a text is not predicted.
                    tokens=round(rows[rows["material"] == material]["count"].max()) + 1,
                    layers=", ".join(map(str, increment.index)),
                    fitted=rows["fitted"].iloc[0],
                    weak=settings.weak,
                    strongest=settings.strongest,
                    seeing=signed(seeing["change"].iloc[at], 2),
                    unseeing=signed(unseeing["change"].iloc[at], 2),
                    at=seeing.index[at],
                    free=said(free),
                    top=free["layer"],
                ),
                "ceiling",
                str(material),
                settings,
            )
        )
    return found


def draw_ceiling(table: pd.DataFrame) -> "go.Figure":
    """Slopes of the fitted writes by layer, for each material."""
    materials = table.groupby("material", sort=False)
    return draw_ceilings({words(str(material)): here for material, here in materials})
