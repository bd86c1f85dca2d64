"""The verdicts of the scratch experiment: two questions for each network."""

from collections.abc import Sequence

import pandas as pd

from ...drawing.labels import capital, counted
from ..design.comparisons import (
    Comparison,
    compare,
    said_of,
    verdicts_on,
    with_visible_by_width,
)
from ..design.conditions import LONGER, Arm
from ..design.contrasts import Contrast, Resampling
from ..design.text_scopes import ALL, COPYABLE
from ..engine.results import Finding
from .arms import NONE, name_of
from .contrasts import arm_of, difference, last_step
from .settings import ScratchSettings

_JUDGED = (COPYABLE, ALL)

_METHOD = (
    "{network}; {seeds}; {n} documents. Loss on {scope} tokens of held-out text after "
    "the last step, of the network that grew up with the true token minus each other. {said} Texts "
    "and seeds are resampled; few seeds say little of how others turn out."
)


def findings(settings: ScratchSettings, losses: pd.DataFrame) -> tuple[Finding, ...]:
    """A verdict on copyable and on all tokens for each network, with Holm's correction over them.

    `losses` are the rows of all networks.
    """
    asked = [(network, scope) for network in settings.networks for scope in _JUDGED]
    compared = [_compare(settings, _of(losses, network), scope) for network, scope in asked]
    margins = [
        (settings.smallest_all if scope == ALL else settings.smallest_copyable, "nats")
        for _, scope in asked
    ]
    return tuple(
        Finding(
            f"Does a model that grows up with the true token gain on {scope} tokens at the end of "
            f"{last_step(_of(losses, network), 'true')} steps? ({name_of(*network)})",
            judged,
            _said(settings, _of(losses, network), comparison, network, scope),
            "gain" if scope == COPYABLE else "curves",
        )
        for (network, scope), comparison, judged in zip(
            asked, compared, verdicts_on(compared, margins), strict=True
        )
    )


def _of(losses: pd.DataFrame, network: tuple[int, int]) -> pd.DataFrame:
    blocks, entry = network
    return losses[(losses["blocks"] == blocks) & (losses["entry"] == entry)]


def _compare(settings: ScratchSettings, rows: pd.DataFrame, scope: str) -> Comparison:
    def true_minus(references: Sequence[Arm], resampling: Resampling) -> list[Contrast]:
        return [
            difference(rows, resampling, scope=scope, arms=("true", reference.source))
            for reference in references
        ]

    controls = [arm for arm in settings.trained_arms if arm not in ("true", NONE)]
    compared = compare(
        true_minus,
        [arm_of(NONE), *map(arm_of, controls)],
        settings.resampling,
        lower_is_better=True,
    )
    return with_visible_by_width(compared)


def _said(
    settings: ScratchSettings,
    rows: pd.DataFrame,
    compared: Comparison,
    network: tuple[int, int],
    scope: str,
) -> str:
    name, seeds = name_of(*network), len(settings.seeds)
    said = said_of(compared, "nats")
    if LONGER in settings.trained_arms:
        steps = last_step(rows, LONGER)
        said += f" The longer training makes {steps} steps: as many operations as with a write."
    return _METHOD.format(
        network=capital(name),
        seeds=counted(seeds, "seed"),
        n=rows.loc[rows["scope"] == ALL, "cluster"].nunique(),
        scope=scope,
        said=said,
    )
