"""From the rows of the likeliest experiment to tables and verdicts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...measures.intervals import share_difference_interval, share_interval
from ..design.contrasts import Contrast, mean_contrast
from ..design.findings import Asked, judged
from ..engine.results import Analysis, Finding, Tables
from .figures import draw
from .sequences import SAMPLE, ascent_name, beam_name, swaps_name
from .settings import LikeliestSettings
from .stages import chosen_variant

LIKELIEST = "likeliest found"

ASCENT_QUESTION = (
    "Does gradient ascent help to find likelier sequences than beam search, at the same number of "
    "model evaluations?"
)
SWAPS_QUESTION = (
    "Do swaps guided by gradients help beam search to likelier sequences, at the same number of "
    "model evaluations?"
)
LOOP_QUESTION = "Does it help a continuation to be a loop if it is the likeliest?"
REPETITION_QUESTION = "Does it help a continuation to repeat itself if it is the likeliest?"


def analyse(settings: LikeliestSettings, rows: Tables) -> Analysis:
    """The analysis of a run."""
    sequences = with_likeliest(rows["sequences"])
    tables = {
        "ways": way_table(sequences, settings),
        "differences": difference_table(sequences, settings),
        "variants": variant_table(rows["variants"], settings),
        "likeliest": sequences[sequences["way"] == LIKELIEST].drop(columns="tokens"),
        "sequences_rows": rows["sequences"].drop(columns="tokens"),
        "variants_rows": rows["variants"],
    }
    return Analysis(tables, _findings(sequences, rows["variants"], settings), draw)


def with_likeliest(sequences: pd.DataFrame) -> pd.DataFrame:
    """The rows, and for each prompt and length one more: the likeliest sequence that was found.

    Its column `by` names the way that found it, the first of equals.
    """
    best = sequences.loc[sequences.groupby(["length", "prompt"])["log_likelihood"].idxmax()]
    best = best.assign(by=best["way"], way=LIKELIEST)
    return pd.concat([sequences.assign(by=sequences["way"]), best], ignore_index=True)


def way_table(sequences: pd.DataFrame, settings: LikeliestSettings) -> pd.DataFrame:
    """For each length and way: its price, nats per token, wins, loops and repetition.

    `wins` is the share of prompts on which no way found a likelier sequence.
    """
    found: list[dict[str, Any]] = []
    groups: Any = sequences.groupby(["length", "way"], sort=False)
    for (length, way), part in groups:
        best = sequences[(sequences["length"] == length) & (sequences["way"] == LIKELIEST)]
        top = best.set_index("prompt")["log_likelihood"].loc[part["prompt"]].to_numpy()
        own = part["log_likelihood"].to_numpy(np.float64)
        interval = settings.resampling.interval(own / int(length))
        loops = share_interval(
            int(part["looped"].sum()), len(part), level=settings.resampling.level
        )
        found.append(
            {
                "length": int(length),
                "way": way,
                "evaluations": int(part["evaluations"].max()),
                **interval.columns(),
                # Runs of different shapes round otherwise.
                "wins": float((own > top - 1e-3).mean()),
                "loop_share": loops.estimate,
                "loop_low": loops.low,
                "loop_high": loops.high,
                "rep_2": float(part["rep_2"].mean()),
                "rep_4": float(part["rep_4"].mean()),
            }
        )
    return pd.DataFrame(found)


def difference_table(sequences: pd.DataFrame, settings: LikeliestSettings) -> pd.DataFrame:
    """Nats per token of each way minus those of the widest beam search, for each length and all."""
    found = []
    reference = beam_name(settings.width)
    for way in sequences["way"].drop_duplicates():
        if way in (reference, LIKELIEST):
            continue
        spans = {str(length): (length,) for length in settings.lengths}
        for name, lengths in {**spans, "all": settings.lengths}.items():
            difference = _nats(sequences, way, lengths) - _nats(sequences, reference, lengths)
            if not np.isfinite(difference).all():  # not measured at this length
                continue
            against = mean_contrast(difference, settings.resampling)
            found.append(
                {
                    "way": way,
                    "minus": reference,
                    "length": name,
                    **against.interval.columns(),
                    "p_value": against.p_value,
                }
            )
    return pd.DataFrame(found)


def variant_table(variants: pd.DataFrame, settings: LikeliestSettings) -> pd.DataFrame:
    """Nats per token of the variants of the ascent on the prompts that choose."""
    found = []
    for way, part in variants.groupby("way", sort=False):
        nats = part["log_likelihood"].to_numpy(np.float64) / part["length"].to_numpy(np.float64)
        found.append({"variant": way, **settings.resampling.interval(nats).columns()})
    return pd.DataFrame(found)


def _findings(
    sequences: pd.DataFrame, variants: pd.DataFrame, settings: LikeliestSettings
) -> tuple[Finding, ...]:
    beam, half = beam_name(settings.width), beam_name(settings.width // 2)
    lengths, longest = settings.lengths, settings.lengths[-1]
    nats = {way: _nats(sequences, way, lengths) for way in (ascent_name(), swaps_name(half), beam)}
    looped, rep = (
        {way: _values(sequences, way, longest, column) for way in (LIKELIEST, SAMPLE)}
        for column in ("looped", "rep_4")
    )
    more_loops = share_difference_interval(
        looped[LIKELIEST] > 0, looped[SAMPLE] > 0, level=settings.resampling.level
    )
    n = len(looped[SAMPLE])
    price = (
        f"{n} prompts, sequences of {', '.join(map(str, lengths))} tokens, at the price of "
        f"{settings.width} forward tokens for each token of the sequence; a backward pass counts "
        "two forward passes. Log-likelihood per token, mean over the lengths: "
    )
    loops = share_interval(int(looped[LIKELIEST].sum()), n, level=settings.resampling.level)
    found_by = sequences[(sequences["way"] == LIKELIEST) & (sequences["length"] == longest)]
    by = ", ".join(f"{way} {count}" for way, count in found_by["by"].value_counts().items())
    of_longest = (
        f"The likeliest sequence of {longest} tokens that any way found after each of {n} prompts "
        f"({by}), against one sample at temperature 1. "
    )
    chosen = (
        f" The variant of the ascent, {chosen_variant(variants)}, was chosen on "
        f"{settings.choosing} other prompts."
    )

    def more(values: Mapping[str, Float[np.ndarray, " prompt"]], way: str, than: str) -> Contrast:
        return mean_contrast(values[way] - values[than], settings.resampling)

    return judged(
        [
            Asked(
                ASCENT_QUESTION,
                more(nats, ascent_name(), beam),
                price + _means(nats, ascent_name(), beam) + chosen,
                "likelihood",
                settings.smallest_nats,
                units="nats per token",
            ),
            Asked(
                SWAPS_QUESTION,
                more(nats, swaps_name(half), beam),
                price + _means(nats, swaps_name(half), beam),
                "likelihood",
                settings.smallest_nats,
                units="nats per token",
            ),
            Asked(
                LOOP_QUESTION,
                replace(more(looped, LIKELIEST, SAMPLE), interval=more_loops),
                f"{of_longest}Share that ends in an exact loop: {loops} against "
                f"{looped[SAMPLE].mean():.2f}.",
                "loops",
                settings.smallest_share,
                units="of texts",
            ),
            Asked(
                REPETITION_QUESTION,
                more(rep, LIKELIEST, SAMPLE),
                f"{of_longest}rep-4: {_means(rep, LIKELIEST, SAMPLE)}",
                "loops",
                settings.smallest_share,
                units="of 4-grams",
            ),
        ]
    )


def _nats(
    sequences: pd.DataFrame, way: str, lengths: tuple[int, ...]
) -> Float[np.ndarray, " prompt"]:
    """Log-likelihood per token of each prompt, mean over the lengths."""
    return np.mean(
        [_values(sequences, way, length, "log_likelihood") / length for length in lengths], axis=0
    )


def _values(
    sequences: pd.DataFrame, way: str, length: int, column: str
) -> Float[np.ndarray, " prompt"]:
    """A column of one way, in the order of the prompts; nan where it was not measured."""
    here = sequences[(sequences["way"] == way) & (sequences["length"] == length)]
    ordered = here.set_index("prompt")[column].reindex(sorted(sequences["prompt"].unique()))
    return ordered.to_numpy(np.float64)


def _means(values: dict[str, Float[np.ndarray, " prompt"]], way: str, other: str) -> str:
    return f"{way} {values[way].mean():.3f}, {other} {values[other].mean():.3f}."
