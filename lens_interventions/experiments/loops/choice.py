"""The choices of the selection half: the cells of the patch, and the controls that count."""

from collections.abc import Sequence

from ..design.conditions import NO_PATCH, Arm, Cell
from ..design.rules import GREEDY
from ..design.samples import LOOPED, REP, sample_totals
from ..design.sequences import SELECTION
from ..design.totals import Measure, Totals, totals_of
from ..engine.results import Tables
from .cost import LOSS
from .rounds import AGAIN, LOG_ODDS
from .settings import LoopsSettings


def loops_cell(rows: Tables, settings: LoopsSettings) -> Cell:
    """The cell at which the true source leaves the fewest greedy samples in a loop.

    Only cells within the loss budget count. Among equal cells, the one with the lowest mean rep-4
    is taken, and then the one with the lowest loss.
    """
    samples = sample_totals(rows["search"])
    looped, rep = (totals_of(samples, Measure(name), SELECTION) for name in (LOOPED, REP))
    losses = loss_totals(rows, SELECTION)
    arms = affordable(looped.true_arms, rows, settings)
    return min(arms, key=lambda arm: (looped.mean(arm), rep.mean(arm), losses.mean(arm))).cell


def round_cell(rows: Tables, settings: LoopsSettings) -> Cell:
    """The cell within the loss budget where the true source makes another round least likely.

    The mean log-odds of another round decide.
    """
    odds = log_odds_totals(rows, SELECTION)
    return odds.best(affordable(odds.true_arms, rows, settings)).cell


def affordable(arms: Sequence[Arm], rows: Tables, settings: LoopsSettings) -> tuple[Arm, ...]:
    """The arms that raise the loss on the selection half by no more than the loss budget.

    If there is none, the arm with the smallest loss.
    """
    losses = loss_totals(rows, SELECTION)
    limit = losses.mean(NO_PATCH) + settings.loss_budget
    within = tuple(arm for arm in arms if losses.mean(arm) <= limit)
    return within or (losses.best(arms),)


def loss_totals(rows: Tables, half: str) -> Totals:
    """Losses of the arms on one half of the documents."""
    losses = rows["loss"]
    return totals_of(losses[losses["rule"] == str(GREEDY)], Measure(LOSS), half)


def again_totals(rows: Tables, half: str, k: int | None = None) -> Totals:
    """Probability of another round, over all k or after k rounds."""
    tags = frozenset() if k is None else frozenset({f"k-{k}"})
    return totals_of(rows["rounds"], Measure(AGAIN, tags), half)


def log_odds_totals(rows: Tables, half: str) -> Totals:
    """Log-odds of another round, over all k."""
    return totals_of(rows["rounds"], Measure(LOG_ODDS), half)
