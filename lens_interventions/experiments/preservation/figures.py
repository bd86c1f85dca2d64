"""Figures of the preservation experiment, from its tables."""

from typing import TYPE_CHECKING

import pandas as pd

from ...drawing.table_curves import Axes, curves
from ...lens.figures.over_layers import AXIS
from ...model.points import point_name
from ..engine.results import Figures, Tables
from .token_rows import NET, RAW

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DOCUMENTS = "Bands resample documents. They do not know that token types are a sample too."


def draw(tables: Tables) -> Figures:
    """Correlation by point, mean rank by rarity and surprise, and copying."""
    tables = {name: _named(rows) for name, rows in tables.items()}
    correlations = tables["correlations"]
    return {
        "correlation": curves(
            {
                f"preserved: {kind}": rows
                for kind, rows in correlations.groupby("preservation", sort=False)
            },
            Axes("point", "estimate", "correlated_with", AXIS, "rank correlation"),
            title="Preservation of the input token against its rarity and its surprise",
            subtitle=_DOCUMENTS,
        ),
        "rank_by_rarity": rank_by(tables["by_quantile"], "rarity"),
        "rank_by_surprise": rank_by(tables["by_quantile"], "surprise"),
        "copying": curves(
            {"": tables["copying"]},
            Axes("point", "estimate", "templates", AXIS, "rank correlation"),
            title="Preserved at the first occurrence, copied at the second?",
            subtitle="Bands resample words. They do not know that sentences are a sample too.",
        ),
    }


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Residual points by the names that readers know them by."""
    return rows.assign(point=rows["point"].map(point_name)) if "point" in rows else rows


def rank_by(table: pd.DataFrame, by: str) -> "go.Figure":
    """The rank of the input token by layer, in parts of the tokens sorted by one quantity."""
    rows = table[table["sorted_by"] == by]
    names = {
        row.quantile: f"{row.from_nats:.1f} to {row.to_nats:.1f} nats"
        for row in rows[rows["preservation"] == RAW].itertuples()
    }
    if len(set(names.values())) < len(names):
        names = {quantile: f"{quantile!s}: {name}" for quantile, name in names.items()}
    rows = rows.assign(tokens=rows["quantile"].map(names))
    ranks = rows[rows["preservation"] == RAW]
    # -log(1 + rank) becomes a rank again: a geometric mean.
    ranks = ranks.assign(**{name: -ranks[name] for name in ("estimate", "low", "high")})
    ranks = ranks.rename(columns={"low": "high", "high": "low"})
    titles = {
        "rank of the input token": "mean of ln(1 + rank)",
        "log-prob above the same token's elsewhere": "mean of the difference, nats",
    }
    return curves(
        dict(zip(titles, (ranks, rows[rows["preservation"] == NET]), strict=True)),
        Axes("point", "estimate", "tokens", AXIS, titles),
        title=f"The input token by layer, tokens sorted by {by}",
        subtitle=_DOCUMENTS,
    )
