"""Recovery of the input token over depth: a map for each point, one for all, and by rarity."""

from typing import TYPE_CHECKING

from ..drawing.curves import Curve, draw_curves
from ..drawing.theme import ThemeName
from ..lens.figures.grid import point_name
from ..lens.figures.hover import rounded
from .input_recovery import MAPS, InputRecovery

if TYPE_CHECKING:
    import plotly.graph_objects as go


def plot_recovery(
    recovery: InputRecovery,
    *,
    by_rarity: bool = False,
    level: float = 0.95,
    seed: int = 0,
    title: str | None = None,
    theme: ThemeName = "light",
) -> "go.Figure":
    """Shares of input tokens that come first, or among the first ten, over the points.

    **Arguments:**

    - `recovery`: of `input_recovery`.
    - `by_rarity`: a curve for each bin of how often the token was fitted to, by the points' own
        maps, instead of own and shared maps.
    - `level`, `seed`: of the intervals over texts.
    - `title`, `theme`: as in `plot`.
    """
    table = recovery.to_dataframe(level=level, seed=seed)
    groups = dict(list(table.groupby(["map", "rarity", "measure"])))
    if by_rarity:
        seen = [name for name in recovery.rarity[:-1] if name in set(table.rarity)]
        named = [(name, ("own", name)) for name in seen]
    else:
        labels = {"own": "a map for each point", "shared": "one map for all"}
        named = [(labels[name], (name, "all")) for name in MAPS]
    curves = []
    for measure, unit in (("top1", "share first"), ("top10", "share in the first ten")):
        for number, (label, key) in enumerate(named):
            part = groups[(*key, measure)].set_index("point").loc[list(recovery.points)]
            values = {name: part[name].to_numpy() for name in ("mean", "low", "high")}
            curves.append(
                Curve(
                    label=f"{label}, {unit.removeprefix('share ')}",
                    unit=unit,
                    values=values["mean"],
                    low=values["low"],
                    high=values["high"],
                    hover=[
                        f"layer {point_name(point)}, {label}<br>"
                        + "{} [{}, {}]".format(*(rounded(float(v)) for v in numbers))
                        for point, *numbers in zip(recovery.points, *values.values(), strict=True)
                    ],
                    colour=number,
                    dash=number,
                )
            )
    n_tokens = int(recovery.counts[-1].sum())
    subtitle = (
        f"{n_tokens:,} tokens of {recovery.counts.shape[-1]} texts; bands are {level:.0%} "
        "bootstrap intervals over texts."
    )
    if by_rarity:
        subtitle += " Curves by how often the probe was fitted to the token."
    return draw_curves(
        curves,
        [point_name(point) for point in recovery.points],
        title=title or "The input token, recovered from the residual stream",
        subtitle=subtitle,
        theme=theme,
    )
