"""From the rows of the experiment on unlikely tokens to tables and verdicts."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...lens.unlikely_tokens import GROUPS, MEASURES
from ...measures.intervals import Interval
from ..design.contrasts import Contrast, mean_contrast, row_interval
from ..design.documents import middle
from ..design.findings import Asked, judged
from ..engine.results import Analysis, Tables
from .ablation import NOTHING, RANDOM, TOKENS
from .figures import draw
from .settings import UnlikelySettings


def analyse(settings: UnlikelySettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    ablation = changes(rows["ablation"], settings)
    tables = {
        "components": components(rows["components"], settings),
        "ablation": ablation,
        "components_rows": rows["components"],
        "ablation_rows": rows["ablation"],
    }
    asked = (
        *_asked_of_components(rows["components"], settings),
        _asked_of_ablation(ablation, settings),
    )
    return Analysis(tables, judged(asked), draw)


def components(rows: pd.DataFrame, settings: UnlikelySettings) -> pd.DataFrame:
    """Means over documents of both statistics, by group and point, with intervals.

    Columns: statistic, group, point, estimate, low, high, n.
    """
    keys = ["statistic", "group", "point"]
    return pd.DataFrame(
        [
            {**dict(zip(keys, key, strict=True)), **_interval(values, settings).columns()}
            for key, values in _by_document(rows, keys, "value").items()
        ]
    )


def changes(rows: pd.DataFrame, settings: UnlikelySettings) -> pd.DataFrame:
    """Losses with something taken out, minus those with nothing or with random directions.

    Columns: layer, or "mean" of the layers; taken_out, minus, removed, and those of
    `Contrast.columns`.
    """
    keys = ["layer", "taken_out"]
    totals, counts, removed = (
        _by_document(rows, keys, column) for column in ("total", "count", "removed")
    )
    layers = sorted({int(layer) for layer, _ in totals})
    names = [name for name in dict.fromkeys(rows["taken_out"]) if name != NOTHING]
    found = []
    for label, among in [*((str(layer), [layer]) for layer in layers), (MEAN, layers)]:
        for name, minus in [*((name, NOTHING) for name in names), (TOKENS, RANDOM)]:
            each = [totals[layer, name] - totals[layer, minus] for layer in among]
            # If none of the drawn directions is unlikely, nothing was taken out.
            out = [removed[layer, one] > 0 for layer in among for one in {name, minus} - {NOTHING}]
            measured = np.all(out, axis=0)
            change = mean_contrast(
                np.mean(each, axis=0)[measured],
                settings.resampling,
                counts[among[0], name][measured],
            )
            found.append(
                {
                    "layer": label,
                    "taken_out": name,
                    "minus": minus,
                    "removed": float(np.mean([removed[layer, name] for layer in among])),
                    **change.columns(),
                }
            )
    return pd.DataFrame(found)


MEAN = "mean"
"""The label of the mean over the layers where directions are taken out."""

_MATCHED = (
    "Unlikely tokens have a probability below {below:g} at the output, as {share:.0%} have. Random "
    "directions have the mean and covariance of the tokens' directions, get a probability by a row "
    "of the unembedding as long as a token's, and count where it is as low. {n} documents, which "
    "are resampled; points {first} to {last}, the middle third. "
)
_SIZE = (
    "The squared component's share of the squared residual, less its mean over the text, times "
    "d_model: 1 is what any direction has on average. {tokens:.3g} along unlikely tokens, "
    "{random:.3g} along random directions, {likely:.3g} along the likeliest tokens."
)
_LEFT = (
    "The slope of the component at the output in the component at a point: 1 if the blocks above "
    "leave it alone, 0 if they take it out. {tokens:.3g} for unlikely tokens, {random:.3g} for "
    "random directions, {likely:.3g} for the likeliest tokens. Lower: taken out."
)


def _asked_of_components(rows: pd.DataFrame, settings: UnlikelySettings) -> list[Asked]:
    points = tuple(dict.fromkeys(rows["point"]))
    chosen = [points[i] for i in middle(points)]
    inside = rows[rows["point"].isin(chosen)]
    keys = ["statistic", "group"]
    means = _by_document(inside, keys, "value")
    said = _MATCHED.format(
        below=settings.below,
        share=rows["unlikely"].mean(),
        n=inside["document"].nunique(),
        first=chosen[0],
        last=chosen[-1],
    )
    questions = (
        (
            "Does being unlikely help a token to take up the middle of the stream?",
            _SIZE,
            settings.smallest_size,
            False,
            "size",
        ),
        (
            "Does being unlikely help a token to be taken out before the output?",
            _LEFT,
            settings.smallest_left,
            True,
            "left",
        ),
    )
    asked = []
    for statistic, (question, method, smallest, lower_is_better, figure) in zip(
        MEASURES, questions, strict=True
    ):
        tokens, random, likely = (means[statistic, group] for group in (*GROUPS[:2], GROUPS[-1]))
        numbers = method.format(tokens=_mean(tokens), random=_mean(random), likely=_mean(likely))
        difference = tokens - random
        asked.append(
            Asked(
                question,
                mean_contrast(difference[np.isfinite(difference)], settings.resampling),
                said + numbers,
                figure,
                smallest,
                lower_is_better,
                units="" if statistic == MEASURES[1] else "times the average",
            )
        )
    return asked


def _by_document(
    rows: pd.DataFrame, keys: list[str], column: str
) -> dict[tuple[Any, ...], Float[np.ndarray, " document"]]:
    """The mean of a column for each document, by the keys, in the order of the rows."""
    means = rows.groupby([*keys, "document"], sort=False)[column].mean().unstack("document")
    return dict(zip(means.index, means.to_numpy(dtype=np.float64), strict=True))


def _mean(values: Float[np.ndarray, " document"]) -> float:
    """The mean of the documents of which something is known; nan without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _interval(values: Float[np.ndarray, " document"], settings: UnlikelySettings) -> Interval:
    return settings.resampling.interval(values[np.isfinite(values)])


_ABLATION = (
    "At each of the layers {layers}, alone, the {k} directions along which a residual lies most "
    "are set to their mean: of the unlikely ones among {directions} tokens, and of the unlikely "
    "ones among as many random directions. The loss with the former minus that with the latter, "
    "averaged over the layers; {n} documents are resampled. They hold {tokens:.0%} and "
    "{random:.0%} of the squared residual. Against nothing taken out: {changes}."
)


def _asked_of_ablation(table: pd.DataFrame, settings: UnlikelySettings) -> Asked:
    here = table[table["layer"] == MEAN]
    against = here[here["minus"] == NOTHING].set_index("taken_out")
    row = here[here["minus"] == RANDOM].iloc[0].to_dict()
    more = Contrast(row_interval(row), row["p_value"])
    told = [
        f"{name} {change['estimate']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
        for name, change in against.iterrows()
    ]
    method = _ABLATION.format(
        layers=", ".join(layer for layer in dict.fromkeys(table["layer"]) if layer != MEAN),
        k=settings.ablated,
        directions=settings.directions,
        n=more.interval.n,
        tokens=against.loc[TOKENS, "removed"],
        random=against.loc[RANDOM, "removed"],
        changes=", ".join(told),
    )
    return Asked(
        "Does it hurt to take unlikely tokens out of the middle, more than random directions?",
        more,
        method,
        "ablation",
        settings.smallest_loss,
        lower_is_better=True,
        units="nats",
    )
