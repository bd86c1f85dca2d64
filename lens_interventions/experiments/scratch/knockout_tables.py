"""Tables of knockouts: what they cost where all heads are knocked out, and head by head."""

import pandas as pd

from ..design.contrasts import seed_contrast
from ..design.rows_of_sums import rows_where
from ..design.text_scopes import ALL, AS_TRAINED, COPYABLE, OTHER, SECOND
from .arms import UNWRITTEN
from .contrasts import by_network
from .knockouts import EVERY, FIRST_ORDER, LOSS, PATHS
from .settings import ScratchSettings

_SCOPES = (ALL, COPYABLE, OTHER, SECOND)


def all_heads(settings: ScratchSettings, rows: pd.DataFrame) -> pd.DataFrame:
    """What it costs a network if no head has the write in its keys, its values, or in both.

    Columns: network, blocks, entry, arm, path, scope, estimate, low, high, level, method, n,
    p_value. The estimate is the rise of the loss of the same networks, nats a token, with an
    interval over seeds and documents.
    """
    losses = rows_where(rows, measured=LOSS, head=EVERY)
    found = []
    for named, of_network in by_network(settings, losses):
        for arm in (arm for arm in settings.trained_arms if arm not in UNWRITTEN):
            here = rows_where(of_network, arm=arm)
            for path in PATHS:
                for scope in _SCOPES:
                    one, other = (
                        rows_where(here, path=each, scope=scope) for each in (path, AS_TRAINED)
                    )
                    found.append(
                        {
                            **named,
                            "arm": arm,
                            "path": path,
                            "scope": scope,
                            **seed_contrast(one, other, settings.resampling).columns(),
                        }
                    )
    return pd.DataFrame(found)


def single_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """What it costs a network if one head does not have the write, of each seed.

    Columns: blocks, entry, arm, seed, block, head, path, scope, rise, first_order. The rise is that
    of the loss, nats a token; the first order is what the loss's derivative predicts for it.
    """
    network = ["blocks", "entry", "arm", "seed"]
    heads = [*network, "block", "head", "path", "scope"]
    kept = rows[rows["scope"].isin(_SCOPES)]
    sums = kept.groupby([*heads, "measured"], sort=False)[["total", "count"]].sum()
    means = (sums["total"] / sums["count"]).rename("rise").reset_index()
    losses = means[means["measured"] == LOSS].drop(columns="measured")
    trained = losses[losses["path"] == AS_TRAINED].set_index([*network, "scope"])["rise"]
    single = losses[losses["head"] != EVERY].set_index([*network, "scope"])
    rises = single.assign(rise=single["rise"] - trained.loc[single.index].to_numpy()).reset_index()
    predicted = means[means["measured"] == FIRST_ORDER].rename(columns={"rise": "first_order"})
    both = rises.merge(predicted[[*heads, "first_order"]], on=heads, validate="one_to_one")
    return both[[*heads, "rise", "first_order"]]


def kept_knockouts(rows: pd.DataFrame) -> pd.DataFrame:
    """The sums of single texts, so that a reader recomputes what `all_heads` tells.

    Columns: blocks, entry, arm, path, scope, seed, row, cluster, total, count.
    """
    columns = ["blocks", "entry", "arm", "path", "scope", "seed", "row", "cluster"]
    kept = rows_where(rows, measured=LOSS, head=EVERY)
    kept = kept[kept["scope"].isin(_SCOPES)]
    return kept[[*columns, "total", "count"]].reset_index(drop=True)
