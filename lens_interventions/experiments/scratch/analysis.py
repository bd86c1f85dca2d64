"""From the rows of the scratch experiment to tables and verdicts."""

import numpy as np
import pandas as pd

from ..design.rows_of_sums import range_of_seeds
from ..design.text_scopes import ALL, AS_TRAINED, COPYABLE, OTHER, SECOND, TAKEN_AWAY
from ..engine.results import Analysis, Tables
from .arms import NONE
from .contrasts import IN_CONTEXT, by_network, difference, last_step, with_in_context
from .decoding import DECODED
from .evaluation import FALSIFIED, PREFIX_MATCHING, SAME_TOKEN
from .figures import draw
from .findings import findings
from .knockout_tables import all_heads, kept_knockouts, single_heads
from .settings import ScratchSettings
from .stages import COST, KNOCKOUTS, TABLE

SCOPES = (ALL, COPYABLE, OTHER, "repeats of surprises", SECOND, IN_CONTEXT)

# The parts of a training after which the gain is shown.
_PARTS = (0.25, 0.5, 1.0)


def analyse(settings: ScratchSettings, rows: Tables) -> Analysis:
    """Tables, two or three verdicts for each network, and figures."""
    measured = rows[TABLE]
    heads = measured[measured["scope"].isin([PREFIX_MATCHING, SAME_TOKEN])]
    losses = with_in_context(measured[~measured["scope"].isin([*_NO_LOSS])])
    contrasts = final_contrasts(settings, losses)
    tables = {
        "contrasts": contrasts,
        "gains": gains(settings, losses),
        "curves": loss_curves(settings, losses),
        "heads": best_heads(heads),
        "efficiency": efficiency(settings, losses),
        "cost": measured[measured["scope"] == COST][["blocks", "entry", "arm", "step", "total"]]
        .drop_duplicates()
        .rename(columns={"step": "steps", "total": "operations_of_a_step"})
        .reset_index(drop=True),
        "rows": kept_rows(losses),
        "knockouts": all_heads(settings, rows[KNOCKOUTS]),
        "head_knockouts": single_heads(rows[KNOCKOUTS]),
        "knockout_rows": kept_knockouts(rows[KNOCKOUTS]),
    }
    return Analysis(tables, findings(settings, losses), draw)


_NO_LOSS = (PREFIX_MATCHING, SAME_TOKEN, COST)


def final_contrasts(settings: ScratchSettings, losses: pd.DataFrame) -> pd.DataFrame:
    """The true arm minus every other at the end, and what its network does without the write.

    Columns: network, blocks, entry, scope, arm, condition, minus, estimate, low, high, level,
    method, n, p_value. The estimate is the change of the loss, nats a token, or of a share of what
    was decoded freely.
    """
    pairs = [("true", AS_TRAINED, other) for other in settings.trained_arms if other != "true"]
    pairs += [(arm, AS_TRAINED, NONE) for arm in settings.trained_arms if arm not in ("true", NONE)]
    changed = [("true", condition, NONE) for condition in (TAKEN_AWAY, FALSIFIED)]
    found = []
    for named, here in by_network(settings, losses):
        asked = dict.fromkeys(SCOPES, pairs + changed)
        asked |= {scope: pairs for scope in DECODED if scope in set(here["scope"])}
        for scope, pairs_there in asked.items():
            for arm, condition, minus in pairs_there:
                found_here = difference(
                    here, settings.resampling, scope=scope, arms=(arm, minus), condition=condition
                )
                found.append(
                    {
                        **named,
                        "scope": scope,
                        "arm": arm,
                        "condition": condition,
                        "minus": minus,
                        **found_here.columns(),
                    }
                )
    return pd.DataFrame(found)


def kept_rows(losses: pd.DataFrame) -> pd.DataFrame:
    """The sums of single texts at the end, so that a reader recomputes a contrast.

    Columns: blocks, entry, arm, condition, scope, seed, row, cluster, total, count.
    """
    trained = ["blocks", "entry", "arm"]
    at_end = losses["step"] == losses.groupby(trained)["step"].transform("max")
    columns = [*trained, "condition", "scope", "seed", "row", "cluster", "total", "count"]
    shown = losses["scope"].isin([*SCOPES, *DECODED])
    return losses.loc[at_end & shown, columns].reset_index(drop=True)


def gains(settings: ScratchSettings, losses: pd.DataFrame) -> pd.DataFrame:
    """The true arm minus none after parts of the training, on the windows of the curves.

    Columns: network, blocks, entry, scope, part, steps, estimate, low, high, n.
    """
    kept = _of_curves(settings, losses)
    found = []
    for named, here in by_network(settings, kept):
        for part in _PARTS:
            steps = [_nearest(here, arm, part) for arm in ("true", NONE)]
            for scope in SCOPES:
                interval = difference(
                    here, settings.resampling, scope=scope, arms=("true", NONE), steps=steps
                ).interval
                found.append(
                    {
                        **named,
                        "scope": scope,
                        "part": part,
                        "steps": steps[0],
                        **interval.columns(),
                    }
                )
    return pd.DataFrame(found)


def loss_curves(settings: ScratchSettings, losses: pd.DataFrame) -> pd.DataFrame:
    """Losses during training, on the same windows at each step.

    Columns: network, blocks, entry, arm, scope, step, loss, lowest, highest. Lowest and
    highest are those of the seeds.
    """
    kept = _of_curves(settings, losses)
    kept = kept[kept["scope"].isin(SCOPES)]
    keys = ["arm", "scope", "step"]
    found = []
    for named, here in by_network(settings, kept):
        of_seeds = range_of_seeds(here, keys).rename(columns={"mean": "loss"})
        found.append(of_seeds.assign(**named))
    columns = ["network", "blocks", "entry", *keys, "loss", "lowest", "highest"]
    return pd.concat(found, ignore_index=True)[columns]


def best_heads(heads: pd.DataFrame) -> pd.DataFrame:
    """The score of the best head at each point, its mean over seeds.

    Columns: blocks, entry, arm, score, step, best. The score is the mean attention from the second
    copy of random tokens to the place after the same token ("prefix matching"), or to the token
    itself ("same token").
    """
    keys = ["blocks", "entry", "arm", "scope", "step"]
    best = heads.groupby([*keys, "seed"], sort=False)["total"].max()
    found = best.groupby(level=keys, sort=False).mean().rename("best").reset_index()
    return found.rename(columns={"scope": "score"})


def efficiency(settings: ScratchSettings, losses: pd.DataFrame) -> pd.DataFrame:
    """Steps after which each arm has the final loss of the arm without a write.

    Columns: network, blocks, entry, scope, arm, seed, steps, of. Steps are interpolated between the
    points of the curve, nan where the arm never gets there; `of` is how many the other arm made.
    """
    kept = _of_curves(settings, losses)
    found = []
    for named, here in by_network(settings, kept):
        for scope in (ALL, COPYABLE):
            of_scope = here[here["scope"] == scope]
            table = of_scope.groupby(["arm", "seed", "step"])[["total", "count"]].sum()
            loss = table["total"] / table["count"]
            end = last_step(here, NONE)
            for arm in settings.trained_arms:
                for seed in settings.seeds:
                    curve = loss.loc[(arm, seed)].sort_index()
                    wanted = float(loss.loc[(NONE, seed, end)])
                    found.append(
                        {
                            **named,
                            "scope": scope,
                            "arm": arm,
                            "seed": seed,
                            "steps": _crossing(curve, wanted),
                            "of": end,
                        }
                    )
    return pd.DataFrame(found)


def _crossing(curve: pd.Series, wanted: float) -> float:
    steps, values = curve.index.to_numpy(dtype=np.float64), curve.to_numpy(dtype=np.float64)
    below = np.flatnonzero(values <= wanted)
    if not len(below):
        return float("nan")
    at = int(below[0])
    if at == 0:
        return float(steps[0])
    share = (values[at - 1] - wanted) / (values[at - 1] - values[at])
    return float(steps[at - 1] + share * (steps[at] - steps[at - 1]))


def _of_curves(settings: ScratchSettings, losses: pd.DataFrame) -> pd.DataFrame:
    """The rows that are measured at each point, so that points compare."""
    measured = (losses["row"] < settings.windows[0]) | (losses["scope"] == SECOND)
    return losses[measured & (losses["condition"] == AS_TRAINED)]


def _nearest(rows: pd.DataFrame, arm: str, part: float) -> int:
    steps = np.unique(rows.loc[rows["arm"] == arm, "step"])
    return int(steps[np.abs(steps - part * steps.max()).argmin()])
