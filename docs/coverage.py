"""How often the intervals of verdicts hold, by simulation.

`python docs/coverage.py` draws samples whose means are known, makes the library's 95% intervals of
them, and prints the table of docs/concepts/verdicts.md: the share of samples whose interval has
the true value inside. Differences are normal, or as skewed as an exponential variable. Cells of a
grid, and comparisons with several controls, share half of their variance.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lens_interventions.experiments.design.contrasts import Resampling, crossed_contrast
from lens_interventions.experiments.design.simultaneous import simultaneous_band
from lens_interventions.measures.intervals import sign_flip_p_values
from lens_interventions.measures.verdicts import joint_interval, outermost

RESAMPLING = Resampling(n_resamples=999)
Draw = Callable[[tuple[int, ...]], np.ndarray]


def normal(rng: np.random.Generator) -> Draw:
    """Differences of mean 0 and variance 1."""
    return lambda shape: rng.normal(size=shape)


def skewed(rng: np.random.Generator) -> Draw:
    """The same, with a long tail of gains."""
    return lambda shape: rng.exponential(size=shape) - 1


class Rows(NamedTuple):
    """Rows of the table that are about the same samples.

    Attributes:
        names: what should hold, and in which share of the samples.
        samples: how many are drawn.
        trial: draws one, and tells of each name whether it holds.
    """

    names: dict[str, float]
    samples: int
    trial: Callable[[Draw], tuple[bool, ...]]


def mean(n: int) -> Rows:
    """The mean of n texts, and what verdicts make of its interval."""

    def trial(draw: Draw) -> tuple[bool, ...]:
        values = draw((n,))
        found = RESAMPLING.interval(values)
        low, high = outermost(found)
        (p_value,) = sign_flip_p_values(values[None], rng=RESAMPLING.rng(), n_resamples=999)
        holds = found.low <= 0 <= found.high
        return holds, low <= 0 <= high, bool(holds or p_value > 0.05)

    names = {
        f"mean of {n} texts": 0.95,
        "the same, to rule out an effect": 0.95,
        "the same, with its p-value, to find help or harm": 0.95,
    }
    return Rows(names, 4000, trial)


def grid(n: int, cells: int) -> Rows:
    """All cells of a grid at once, and the upper ends, which bound what any cell gains."""

    def trial(draw: Draw) -> tuple[bool, ...]:
        values = (draw((1, n)) + draw((cells, n))) / np.sqrt(2)
        band = simultaneous_band(values, np.ones(n), RESAMPLING)
        above = band.high >= 0
        return bool((above & (band.low <= 0)).all()), bool(above.all())

    names = {f"all of {cells} cells at once, {n} texts": 0.95, "only their upper ends": 0.975}
    return Rows(names, 2000, trial)


def lead(n: int, *, ahead: float = 0.0) -> Rows:
    """The end that rules out a lead over the best of nine controls, of which one may be ahead."""
    wider = replace(RESAMPLING, level=1 - 0.05 / 9)

    def trial(draw: Draw) -> tuple[bool, ...]:
        values = (draw((1, n)) + draw((9, n))) / np.sqrt(2)
        values[0] -= ahead
        found = joint_interval(
            [RESAMPLING.interval(each) for each in values],
            [wider.interval(each) for each in values],
            lower_is_better=False,
        )
        return (outermost(found)[1] >= -ahead,)

    controls = "9 controls, of which one is far ahead" if ahead else "9 equal controls"
    return Rows({f"no lead over the best of {controls}, {n} texts": 0.975}, 1000, trial)


def crossed(seeds: int) -> Rows:
    """The mean over seeds and 57 texts, each of which varies, as do single cells."""

    def trial(draw: Draw) -> tuple[bool, ...]:
        values = 0.3 * draw((seeds, 1)) + draw((1, 57)) + draw((seeds, 57))
        found = crossed_contrast(values, np.ones_like(values), RESAMPLING).interval
        return (found.low <= 0 <= found.high,)

    return Rows({f"{seeds} seeds and 57 texts": 0.95}, 2000, trial)


def main() -> None:
    """Print the table."""
    print("| interval | should hold | normal | skewed |\n|---|---|---|---|")
    parts = [
        *(mean(n) for n in (10, 20, 30, 60)),
        *(grid(n, cells) for n, cells in ((6, 10), (10, 10), (12, 32), (28, 120))),
        *(lead(n) for n in (30, 60)),
        lead(30, ahead=1.0),
        *(crossed(seeds) for seeds in (3, 6)),
        *(mean(n) for n in (3, 5)),
    ]
    for number, rows in enumerate(parts):
        # Seeds of their own: RESAMPLING draws with 0.
        draws = [
            kind(np.random.default_rng([7, number, place]))
            for place, kind in enumerate((normal, skewed))
        ]
        held = [np.mean([rows.trial(d) for _ in range(rows.samples)], axis=0) for d in draws]
        for (name, level), *shares in zip(rows.names.items(), *held, strict=True):
            told = " | ".join(f"{100 * share:.1f}%" for share in shares)
            print(f"| {name} | {100 * level:g}% | {told} |", flush=True)


if __name__ == "__main__":
    main()
