"""How well a fitted lens reads, against the raw one, on text that it was not fitted to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from ..lens.affine import AffineLens
from ..lens.aggregate import LensAggregate, lens_over, plot_aggregate
from ..lens.protocol import Lens
from ..measures.intervals import Interval, mean_intervals
from ..model.exclusive import exclusive
from ..model.tokens import TextOrTokens, require_texts, token_batch

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

STATISTICS = ("kl_final", "agrees_final", "next_log_prob")


@dataclass(frozen=True, repr=False)
class LensQuality:
    """Means over the same texts, read raw and through a fitted lens.

    Attributes:
        raw, fitted: sums per point and text.
        note: what the lens was fitted on, if it says so.
    """

    raw: LensAggregate
    fitted: LensAggregate
    note: Mapping[str, Any]

    def __repr__(self) -> str:
        """The means over the points, a line for each statistic."""
        lines = [
            f"{statistic}: raw {of['raw']}, fitted {of['fitted']}, difference {of['difference']}"
            for statistic, of in self.summary().items()
        ]
        return "\n".join([f"LensQuality of {len(self.raw.points)} points", *lines])

    def to_dataframe(self, *, level: float = 0.95, seed: int = 0) -> "pandas.DataFrame":
        """One row per (point, statistic, lens): `mean`, `low`, `high`, `n` texts.

        Statistics are `kl_final`, KL(final ‖ point) in nats; `agrees_final`, the share of positions
        whose top guess is the model's; and `next_log_prob`, minus the loss in nats. `lens` is
        "raw", "fitted", or "difference": fitted minus raw, paired by text.
        """
        import pandas

        rows = []
        for statistic in STATISTICS:
            intervals = {
                "raw": self.raw.intervals(statistic, level=level, seed=seed),
                "fitted": self.fitted.intervals(statistic, level=level, seed=seed),
                "difference": self._differences(statistic, level, seed),
            }
            rows += [
                {
                    "point": point,
                    "statistic": statistic,
                    "lens": lens,
                    "mean": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "n": interval.n,
                }
                for lens, of_points in intervals.items()
                for point, interval in zip(self.raw.points, of_points, strict=True)
            ]
        return pandas.DataFrame(rows)

    def summary(self, *, level: float = 0.95, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """The interval of the mean over points, by statistic and by lens.

        Statistics are `kl_final`, `agrees_final` and `next_log_prob`; lenses "raw", "fitted" and
        "difference", fitted minus raw.
        """
        means = {}
        for statistic in STATISTICS:
            index = self.raw.statistics.index(statistic)
            counts = self.raw.counts[index][None]
            raw, fitted = (each.totals[index].mean(0)[None] for each in (self.raw, self.fitted))
            lenses = {"raw": raw, "fitted": fitted, "difference": fitted - raw}
            means[statistic] = {
                lens: mean_intervals(totals, counts, rng=np.random.default_rng(seed), level=level)[
                    0
                ]
                for lens, totals in lenses.items()
            }
        return means

    def plot(self, **options: Any) -> "plotly.graph_objects.Figure":
        """Curves of both over the points, with their bands.

        `options` are `include_input=True` to begin at the input, `level` and `seed` of the
        intervals, a `title`, and `theme="dark"`.
        """
        options = {"title": "The logit lens, raw and fitted"} | options
        return plot_aggregate({"raw": self.raw, "fitted": self.fitted}, STATISTICS, **options)

    def _differences(self, statistic: str, level: float, seed: int) -> list[Interval]:
        index = self.raw.statistics.index(statistic)
        totals = self.fitted.totals[index] - self.raw.totals[index]
        counts = np.broadcast_to(self.raw.counts[index], totals.shape)
        return mean_intervals(totals, counts, rng=np.random.default_rng(seed), level=level)


@exclusive
def lens_quality(
    bridge: TransformerBridge,
    lens: Lens | JacobianLens,
    texts: Iterable[TextOrTokens],
    *,
    max_tokens: int | None = None,
    skip_first: int = 1,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> LensQuality:
    """Read texts raw and through a lens, and compare both with the model's own output.

    **Arguments:**

    - `lens`: a fitted lens, or any that `logit_lens` takes.
    - `texts`: ones that the lens was not fitted to; held in memory and read twice.
    - `max_tokens`: of each text.
    - `skip_first`: leave out this many tokens of each: the first is an outlier. Texts without any
        other are left out.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` if no text has more than `skip_first` tokens, if a text cannot be read, or
    if the lens is of other weights; `NotImplementedError` if the model is not an attention-only
    decoder; `TypeError` if `texts` is one text.
    """
    require_texts(texts)

    def has_more(text: TextOrTokens) -> bool:
        batch = token_batch(bridge, text, prepend_bos=prepend_bos, any_length=True)
        return int(batch.lengths.min()) > skip_first

    held = [text for text in texts if has_more(text)]
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "positions": slice(skip_first, None),
        "prepend_bos": prepend_bos,
        "progress": progress,
    }
    raw = lens_over(bridge, held, **options)
    fitted = lens_over(bridge, held, lens=lens, **options)
    return LensQuality(raw, fitted, lens.settings if isinstance(lens, AffineLens) else {})
