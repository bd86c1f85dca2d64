"""How often the intervals of verdicts hold, by simulation.

`python docs/coverage.py` draws samples whose means are known, makes the library's 95% intervals of
them, and prints the table of docs/concepts/statistics.md: the share of samples whose interval has
the true value inside. Differences are normal, or as skewed as an exponential variable. Cells of a
grid, and comparisons with several controls, share half of their variance.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from lens_interventions.experiments.design.contrasts import Resampling, crossed_contrast
from lens_interventions.experiments.design.simultaneous import simultaneous_band
from lens_interventions.measures.intervals import sign_flip_p_values
from lens_interventions.measures.verdicts import joint_interval, outermost

SAMPLES = 1000
RESAMPLING = Resampling(n_resamples=999)
DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def mean(rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int) -> bool:
    """An interval of the mean of n texts."""
    found = RESAMPLING.interval(draw(rng, (n,)))
    return found.low <= 0 <= found.high


def ruled_out(rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int) -> bool:
    """The same interval, widened as it is before an effect is ruled out."""
    low, high = outermost(RESAMPLING.interval(draw(rng, (n,))))
    return low <= 0 <= high


def no_call(rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int) -> bool:
    """A verdict about n texts, between which nothing differs: neither help nor harm."""
    values = draw(rng, (n,))
    found = RESAMPLING.interval(values)
    (p_value,) = sign_flip_p_values(
        values[None], rng=RESAMPLING.rng(), n_resamples=RESAMPLING.n_resamples
    )
    return bool(found.low <= 0 <= found.high or p_value > 0.05)


def grid(rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int, cells: int) -> bool:
    """The intervals of all cells of a grid, at once."""
    values = (draw(rng, (1, n)) + draw(rng, (cells, n))) / np.sqrt(2)
    band = simultaneous_band(values, np.ones(n), RESAMPLING)
    return bool(((band.low <= 0) & (band.high >= 0)).all())


def upper_ends(
    rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int, cells: int
) -> bool:
    """The upper ends of the same, which bound what any cell gains."""
    values = (draw(rng, (1, n)) + draw(rng, (cells, n))) / np.sqrt(2)
    return bool((simultaneous_band(values, np.ones(n), RESAMPLING).high >= 0).all())


def lead(
    rng: np.random.Generator, draw: Callable[..., np.ndarray], n: int, controls: int, ahead: float
) -> bool:
    """The end that rules out a lead over the best of several controls, `ahead` by one of them."""
    best = np.zeros(controls)
    best[0] = -ahead
    values = (draw(rng, (1, n)) + draw(rng, (controls, n))) / np.sqrt(2) + best[:, None]
    wider = replace(RESAMPLING, level=1 - 0.05 / controls)
    found = joint_interval(
        [RESAMPLING.interval(each) for each in values],
        [wider.interval(each) for each in values],
        lower_is_better=False,
    )
    return outermost(found)[1] >= -ahead


def crossed(
    rng: np.random.Generator, draw: Callable[..., np.ndarray], seeds: int, spread: float
) -> bool:
    """An interval over seeds and 57 texts, where the means of seeds vary by `spread`."""
    values = spread * draw(rng, (seeds, 1)) + draw(rng, (1, 57)) + draw(rng, (seeds, 57))
    found = crossed_contrast(values, np.ones_like(values), RESAMPLING).interval
    return found.low <= 0 <= found.high


def rows() -> Iterator[tuple[str, float, Callable[..., bool], tuple[float, ...]]]:
    """What is simulated: its name, the share that should hold, the trial and its numbers."""
    for n in (10, 20, 30, 60):
        yield f"mean of {n} texts", 0.95, mean, (n,)
        yield "the same, to rule out an effect", 0.95, ruled_out, (n,)
        yield "the same, with its p-value, to find help or harm", 0.95, no_call, (n,)
    for n, cells in ((10, 10), (12, 32), (28, 120)):
        yield f"all of {cells} cells at once, {n} texts", 0.95, grid, (n, cells)
        yield f"only their upper ends, {n} texts", 0.975, upper_ends, (n, cells)
    for n in (30, 60):
        yield f"no lead over the best of 9 equal controls, {n} texts", 0.975, lead, (n, 9, 0)
    yield (
        "no lead over the best of 9 controls, of which one is far ahead, 30 texts",
        0.975,
        lead,
        (
            30,
            9,
            1,
        ),
    )
    for seeds in (3, 6):
        yield f"{seeds} seeds and 57 texts", 0.95, crossed, (seeds, 0.3)


def main() -> None:
    """Print the table."""
    print("| interval | should hold | normal | skewed |\n|---|---|---|---|")
    for name, level, trial, numbers in rows():
        shares = []
        for number, draw in enumerate(DRAWS.values()):
            rng = np.random.default_rng(number)
            held = [trial(rng, draw, *numbers) for _ in range(SAMPLES)]
            shares.append(f"{100 * np.mean(held):.1f}%")
        print(f"| {name} | {100 * level:g}% | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
