"""The verdicts of the scratch experiment: two questions for each network, or three.

The third is about loops, if texts were decoded freely.
"""

import pandas as pd

from ...drawing.labels import capital, counted
from ..design.comparisons import Comparison, compare_trainings, said_of
from ..design.conditions import LONGER
from ..design.contrasts import Contrast, Resampling
from ..design.findings import Compared, judged_comparisons, resampled
from ..design.text_scopes import ALL, COPYABLE
from ..engine.results import Finding
from .arms import NONE
from .contrasts import by_network, difference, last_step
from .decoding import LOOPED
from .settings import ScratchSettings

# Of each scope that is judged: the question, what is compared, and the figure that shows it.
_GAIN = "gain on {scope} tokens at the end of {steps} steps"
_LOSS = "Loss on {scope} tokens of held-out text after the last step"
_JUDGED = {
    COPYABLE: (_GAIN, _LOSS, "gain"),
    ALL: (_GAIN, _LOSS, "curves"),
    LOOPED: (
        "end fewer greedy texts in a loop after {steps} steps",
        "Share of greedy continuations of half a held-out window that end in a loop",
        "decoding",
    ),
}

_METHOD = (
    "{network}; {seeds}; {n} documents. {compared}, of the network that grew up with the true "
    "token minus each other. {said} {resampled}"
)


def findings(settings: ScratchSettings, rows: pd.DataFrame) -> tuple[Finding, ...]:
    """Verdicts for each network, with Holm's correction over them.

    They are on copyable and on all tokens, and on loops if there are any in the rows. `rows` are
    those of all networks.
    """
    present = set(rows["scope"])
    return judged_comparisons(
        [
            _compared(settings, here, named["network"], scope)
            for named, here in by_network(settings, rows)
            for scope in _JUDGED
            if scope in present
        ]
    )


def _compared(settings: ScratchSettings, rows: pd.DataFrame, network: str, scope: str) -> Compared:
    question, _, figure = _JUDGED[scope]
    gains = question.format(scope=scope, steps=last_step(rows, "true"))
    comparison = _compare(settings, rows, scope)
    return Compared(
        f"Does a model that grows up with the true token {gains}? ({network})",
        comparison,
        _said(settings, rows, comparison, network, scope),
        figure,
        *_margin(settings, scope),
    )


def _margin(settings: ScratchSettings, scope: str) -> tuple[float, str]:
    """The smallest effect worth talking about, and its unit."""
    if scope == LOOPED:
        return settings.smallest_share, ""
    return settings.smallest_all if scope == ALL else settings.smallest_copyable, "nats"


def _compare(settings: ScratchSettings, rows: pd.DataFrame, scope: str) -> Comparison:
    def true_minus(arm: str, resampling: Resampling) -> Contrast:
        return difference(rows, resampling, scope=scope, arms=("true", arm))

    controls = [arm for arm in settings.trained_arms if arm not in ("true", NONE)]
    return compare_trainings(true_minus, [NONE, *controls], settings.resampling, alone=NONE)


def _said(
    settings: ScratchSettings,
    rows: pd.DataFrame,
    compared: Comparison,
    network: str,
    scope: str,
) -> str:
    seeds = len(settings.seeds)
    said = said_of(compared, _margin(settings, scope)[1])
    if LONGER in settings.trained_arms:
        steps = last_step(rows, LONGER)
        said += f" The longer training makes {steps} steps: as many operations as with a write."
    return _METHOD.format(
        network=capital(network),
        seeds=counted(seeds, "seed"),
        n=rows.loc[rows["scope"] == scope, "cluster"].nunique(),
        compared=_JUDGED[scope][1].format(scope=scope),
        said=said,
        resampled=resampled("Texts", seeds),
    )
