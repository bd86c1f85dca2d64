"""The true source against no patch and every control at once, and the verdicts on that.

Each question makes one `Comparison`; `verdicts_on` judges those of a page together, with Holm's
correction over the questions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ...drawing.labels import percent
from ...measures.intervals import Interval, holm
from ...measures.verdicts import (
    JOINT,
    Verdict,
    is_at_level,
    joint_interval,
    joint_verdict,
    smallest_visible,
    visible_by_width,
)
from .conditions import NO_PATCH, Arm, arm_label
from .contrasts import Contrast, Resampling, contrasts, with_holm
from .totals import Totals

OTHER_HALF = "how much the other half varies"
"""Where the smallest visible effect comes from, in words: from `visible_beforehand`."""

WIDTH = "the width of the widest of these intervals"
"""The value of `visible_by` that `with_visible_by_width` sets."""

ContrastsWith = Callable[[Sequence[Arm], Resampling], Sequence[Contrast]]
"""Makes the contrast of the true source with each reference."""


@dataclass(frozen=True)
class Comparison:
    """The true source minus each of its references.

    Attributes:
        contrasts: by reference, `NO_PATCH` first.
        joint: of `joint_interval`, the true source minus the best of the references.
        lower_is_better: True for a loss.
        smallest_visible: the smallest lead that a single test without correction had a good chance
            to see, over the reference against which the differences vary most; None if the other
            half says nothing about it.
        visible_by: where that comes from, in words.
    """

    contrasts: Mapping[Arm, Contrast]
    joint: Interval
    lower_is_better: bool
    smallest_visible: float | None
    visible_by: str = OTHER_HALF

    @property
    def p_value(self) -> float:
        """The largest p-value over the references."""
        return max(contrast.p_value for contrast in self.contrasts.values())

    @property
    def unpatched(self) -> Contrast:
        """The true source minus no patch."""
        return self.contrasts[NO_PATCH]

    @property
    def not_ahead_of(self) -> tuple[str, ...]:
        """The controls that the true source does not beat, in words."""
        return tuple(
            arm_label(arm)
            for arm, contrast in self.contrasts.items()
            if arm != NO_PATCH and not self._is_ahead(contrast)
        )

    def rows(self) -> list[dict[str, Any]]:
        """The joint comparison, then each one, as rows with `source`, `minus` and a p-value."""
        joint = {"source": "true", "minus": JOINT, **asdict(self.joint), "p_value": self.p_value}
        return [
            joint,
            *(
                {"source": "true", "minus": arm.source, **contrast.columns()}
                for arm, contrast in self.contrasts.items()
            ),
        ]

    def _is_ahead(self, contrast: Contrast) -> bool:
        interval = contrast.interval
        is_better = interval.high < 0 if self.lower_is_better else interval.low > 0
        return is_better and is_at_level(contrast.p_value, interval.level)


def compare(
    contrasts_with: ContrastsWith,
    references: Sequence[Arm],
    resampling: Resampling,
    *,
    lower_is_better: bool,
    smallest_visible: float | None = None,
) -> Comparison:
    """Compare the true source with `references`, which include no patch.

    `contrasts_with` makes the contrasts, at the level of the resampling that it is given; `against`
    makes it of totals that hold all arms.
    """
    wider = replace(resampling, level=1 - (1 - resampling.level) / len(references))
    single = contrasts_with(references, resampling)
    joint = joint_interval(
        [contrast.interval for contrast in single],
        [contrast.interval for contrast in contrasts_with(references, wider)],
        lower_is_better=lower_is_better,
    )
    of_reference = dict(zip(references, single, strict=True))
    return Comparison(of_reference, joint, lower_is_better, smallest_visible)


def compare_trainings(
    true_minus: Callable[[str, Resampling], Contrast],
    others: Sequence[str],
    resampling: Resampling,
    *,
    alone: str,
) -> Comparison:
    """Compare the training with the true token with `others`, by a measure that should be low.

    `true_minus` makes the contrast with one of them, by its name. `alone` is the one that stands
    for no patch.
    """
    name_of = {NO_PATCH if name == alone else Arm(name, 0, 1.0, "trained"): name for name in others}
    found = compare(
        lambda references, resampling: [
            true_minus(name_of[reference], resampling) for reference in references
        ],
        list(name_of),
        resampling,
        lower_is_better=True,
    )
    return with_visible_by_width(found)


def against(totals: Totals, arm: Arm) -> ContrastsWith:
    """A function that contrasts `arm` with references, paired over the clusters of `totals`."""

    def contrasts_with(references: Sequence[Arm], resampling: Resampling) -> list[Contrast]:
        return contrasts(totals, [(arm, reference) for reference in references], resampling)

    return contrasts_with


def compare_arms(
    totals: Totals,
    arm: Arm,
    references: Sequence[Arm],
    resampling: Resampling,
    *,
    smallest_visible: float | None = None,
) -> Comparison:
    """Compare `arm` with `references`, which include no patch, over the clusters of `totals`."""
    return compare(
        against(totals, arm),
        references,
        resampling,
        lower_is_better=totals.lower_is_better,
        smallest_visible=smallest_visible,
    )


def visible_beforehand(
    selection: Totals, arm: Arm, references: Sequence[Arm], n: int, level: float
) -> float | None:
    """The smallest lead of `arm` over every reference that `n` clusters are likely to show.

    It is estimated from the most variable differences of the selection half. None if they do not
    vary, if there are fewer than two clusters, or if something is crossed with the clusters, of
    which the two halves need not have as many.
    """
    present = selection.counts > 0
    if present.sum() < 2 or n < 1 or selection.are_crossed:
        return None
    of = selection.of(arm)[present]
    errors = [
        _standard_error(of - selection.of(reference)[present], selection.counts[present], n)
        for reference in references
    ]
    return smallest_visible(max(errors), level=level) if max(errors) > 0 else None


def with_visible_by_width(comparison: Comparison) -> Comparison:
    """The comparison with the smallest visible effect that its widest interval tells."""
    found = [visible_by_width(contrast.interval) for contrast in comparison.contrasts.values()]
    visible = max(filter(None, found), default=None)
    return replace(comparison, smallest_visible=visible, visible_by=WIDTH)


def verdicts_on(
    comparisons: Sequence[Comparison], margins: Sequence[tuple[float, str]]
) -> list[Verdict]:
    """A verdict on each comparison, with Holm's correction over them.

    `margins` holds the smallest effect worth talking about and its units for each.
    """
    joint, unpatched = (
        holm(np.array(p_values, dtype=np.float64))
        for p_values in zip(*((c.p_value, c.unpatched.p_value) for c in comparisons), strict=True)
    )
    return [
        joint_verdict(
            comparison.joint,
            comparison.unpatched.interval,
            smallest_effect=margin,
            lower_is_better=comparison.lower_is_better,
            units=units,
            p_joint=float(p_joint),
            p_unpatched=float(p_unpatched),
            smallest_visible=comparison.smallest_visible,
            not_ahead_of=comparison.not_ahead_of,
        )
        for comparison, (margin, units), p_joint, p_unpatched in zip(
            comparisons, margins, joint, unpatched, strict=True
        )
    ]


def _standard_error(
    differences: Float[np.ndarray, " cluster"], counts: Float[np.ndarray, " cluster"], n: int
) -> float:
    """The standard error of the mean difference in `n` clusters like these."""
    around = differences - differences.sum() / counts.sum() * counts
    return float(np.sqrt((around**2).sum() / (len(counts) - 1) / n) / counts.mean())


def question_rows(
    comparison: Comparison, others: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """The rows of a comparison and `others` about the same question, with `p_holm` over them.

    The joint row does not count among them; `with_holm_over_questions` corrects it.
    """
    joint, *single = comparison.rows()
    return [{**joint, "p_holm": 1.0}, *with_holm([*single, *others])]


def with_holm_over_categories(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add `p_holm`, corrected over the categories: rows with the same `division` and `minus`.

    These rows then follow each other.
    """
    comparisons: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        comparisons.setdefault((row["division"], row["minus"]), []).append(row)
    return [row for part in comparisons.values() for row in with_holm(part)]


def with_holm_over_questions(rows: pd.DataFrame) -> pd.DataFrame:
    """Correct `p_holm` of the joint rows of a table over its questions.

    A question has a joint row for each measure. Those of the measures that verdicts are about, the
    first of each question, are corrected together, and so are the others.
    """
    is_joint = rows["minus"] == JOINT
    number = is_joint.groupby(rows["question"]).cumsum()
    corrected = rows["p_holm"].copy()
    for part in (is_joint & (number == 1), is_joint & (number > 1)):
        corrected[part] = holm(rows.loc[part, "p_value"].to_numpy(dtype=np.float64))
    return rows.assign(p_holm=corrected)


def said_of(comparison: Comparison, units: str) -> str:
    """Each contrast of a comparison in words, and the power it had."""
    each = "; ".join(
        f"{arm_label(arm)}, {contrast.interval} (p = {contrast.p_value:.2g})"
        for arm, contrast in comparison.contrasts.items()
    )
    said = f"True source minus each of these: {each}."
    if comparison.smallest_visible is not None:
        visible = f"{comparison.smallest_visible:.2g} {units}".strip()
        said += (
            f" A single test at {percent(1 - comparison.joint.level)}, before any correction, had "
            f"80% power for a lead of {visible}, estimated from {comparison.visible_by}."
        )
    return said
