"""How well fitted lenses read, compared with the raw one, on text that they were not fitted to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from transformer_lens.tools.analysis import JacobianLens

from ..lens.aggregate import LensAggregate, plot_aggregate
from ..lens.lens_over import lens_over
from ..lens.protocol import Lens, bound_lens, provenance
from ..measures.interval_table import interval_rows
from ..measures.intervals import Interval, mean_intervals
from ..model.argument_types import require_counts, require_counts_or_none, require_instance
from ..model.exclusive import exclusive
from ..model.kinds import ReadableModel
from ..model.tokens import TextOrTokens, require_texts

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

SHOWN = ("kl_final", "agrees_final", "next_log_prob")


RAW = "raw"


@dataclass(frozen=True, repr=False, eq=False)
class LensQuality:
    """Means over the same texts, read raw and through fitted lenses.

    Attributes:
        readings: sums per point and text, by lens: first "raw", then the fitted lenses by their
            names. A single lens without a name is called "fitted".
        notes: what each fitted lens says of its fit, such as its corpus; nothing of a function.
    """

    readings: Mapping[str, LensAggregate]
    notes: Mapping[str, Mapping[str, Any]]

    @property
    def points(self) -> tuple[str, ...]:
        """Labels of the points that were read."""
        return self.readings[RAW].points

    def __repr__(self) -> str:
        """The means over the points, one line for each statistic."""
        lines = [
            f"{statistic}: {', '.join(f'{lens} {interval}' for lens, interval in of.items())}"
            for statistic, of in self.summary().items()
        ]
        return "\n".join([f"LensQuality of {len(self.points)} points", *lines])

    def to_dataframe(
        self, *, against: str = RAW, level: float = 0.95, seed: int = 0
    ) -> "pandas.DataFrame":
        """One row per (point, statistic, lens): `mean`, `low`, `high`, `n` texts.

        Statistics are `kl_final`, KL(final ‖ point) in nats; `agrees_final`, the share of positions
        whose top guess is the model's; and `next_log_prob`, minus the loss in nats. `lens` is the
        name of a reading, or of a difference such as "fitted - raw", paired by text. `against`
        names the reading that is subtracted.
        """
        import pandas

        rows = []
        for statistic in SHOWN:
            sums, counts = self._sums(statistic, against)
            for lens, totals in sums.items():
                places = [
                    {"point": point, "statistic": statistic, "lens": lens} for point in self.points
                ]
                rows += interval_rows(places, totals, counts, level=level, seed=seed, mean="mean")
        return pandas.DataFrame(rows)

    def summary(
        self, *, against: str = RAW, level: float = 0.95, seed: int = 0
    ) -> dict[str, dict[str, Interval]]:
        """The interval of the mean over points, by statistic and by lens.

        Statistics and lenses are those of `to_dataframe`, differences included.
        """
        found = {}
        for statistic in SHOWN:
            sums, counts = self._sums(statistic, against)
            intervals = mean_intervals(
                np.stack([totals.mean(0) for totals in sums.values()]),
                np.stack([counts] * len(sums)),
                rng=np.random.default_rng(seed),
                level=level,
            )
            found[statistic] = dict(zip(sums, intervals, strict=True))
        return found

    def plot(self, **options: Any) -> "plotly.graph_objects.Figure":
        """Curves of all readings over the points, with their bands.

        `options` are `include_input=True` to begin at the input, `level` and `seed` of the
        intervals, a `title`, and `theme="dark"`.
        """
        names = " and ".join(self.readings) if len(self.readings) == 2 else ", ".join(self.readings)
        options = {"title": f"The logit lens, {names}"} | options
        return plot_aggregate(self.readings, SHOWN, **options)

    def _sums(self, statistic: str, against: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Sums `[point, text]` of each reading, and their differences from one; their counts."""
        if against not in self.readings:
            raise ValueError(f"against must be one of {list(self.readings)}, got {against!r}")
        raw = self.readings[RAW]
        index = raw.statistics.index(statistic)
        totals = {name: reading.totals[index] for name, reading in self.readings.items()}
        differences = {
            f"{name} - {against}": of - totals[against]
            for name, of in totals.items()
            if name != against
        }
        return totals | differences, raw.counts[index]


@exclusive
def lens_quality(
    bridge: ReadableModel,
    lens: Lens | JacobianLens | Mapping[str, Lens | JacobianLens],
    texts: Iterable[TextOrTokens],
    *,
    max_tokens: int | None = None,
    skip_first: int = 1,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> LensQuality:
    """Read texts raw and through fitted lenses, and compare all with the model's own output.

    **Arguments:**

    - `lens`: a fitted lens, or any lens that `logit_lens` takes; or several by name, such as
        `{"affine": lens, "Jacobian": jacobian}`. The name "raw" is taken.
    - `texts`: texts that no lens was fitted to. They are held in memory, and read once for each
        lens and once for the raw lens.
    - `max_tokens`: of each text.
    - `skip_first`: leave out this many tokens at the start of each text: the first is an outlier.
        Texts without other tokens are left out.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if a lens has the name "raw", `skip_first` is below 0 or not below
    `max_tokens`, no text has more than `skip_first` tokens, a text cannot be read, or a lens
    belongs to other weights; `NotImplementedError` if the model is recurrent or not a causal
    decoder; `TypeError` if `texts` is one text, a name is no string, or a lens cannot be called.
    """
    require_texts(bridge, texts)
    require_counts(least=0, skip_first=skip_first)
    require_counts_or_none(max_tokens=max_tokens)
    if max_tokens is not None and max_tokens <= skip_first:
        raise ValueError(
            f"max_tokens must be above skip_first, or nothing is left to read; got {max_tokens} "
            f"and {skip_first}"
        )
    lenses = lens if isinstance(lens, Mapping) else {"fitted": lens}
    for name in lenses:
        require_instance("the name of a lens", name, str)
    if not lenses or RAW in lenses:
        raise ValueError(f"name one or more lenses, and none of them {RAW!r}; got {list(lenses)}")
    if unfitted := [name for name, one in lenses.items() if one is None]:
        raise TypeError(f"the lens {unfitted[0]!r} is None: the raw lens is read in any case")
    for one in lenses.values():
        bound_lens(bridge, one)
    held = list(texts)
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "positions": slice(skip_first, None),
        "prepend_bos": prepend_bos,
        "progress": progress,
    }
    raw = lens_over(bridge, held, **options)
    fitted = {name: lens_over(bridge, held, lens=one, **options) for name, one in lenses.items()}
    present = raw.counts.any(0)
    readings = {
        name: replace(
            reading, totals=reading.totals[..., present], counts=reading.counts[:, present]
        )
        for name, reading in {RAW: raw, **fitted}.items()
    }
    return LensQuality(readings, {name: provenance(one) for name, one in lenses.items()})
