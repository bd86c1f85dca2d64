"""The experiments that run on any model, by name."""

from collections.abc import Mapping
from typing import Any

from .copying import PLAN as COPYING
from .engine.presets import Plan
from .increment import PLAN as INCREMENT
from .last_word import PLAN as LAST_WORD
from .learned import PLAN as LEARNED
from .likeliest import PLAN as LIKELIEST
from .loops import PLAN as LOOPS
from .preservation import PLAN as PRESERVATION
from .reader import PLAN as READER
from .recall import PLAN as RECALL
from .slopes import PLAN as SLOPES
from .unlikely import PLAN as UNLIKELY

PLANS: Mapping[str, Plan[Any]] = {
    plan.name: plan
    for plan in (
        COPYING,
        INCREMENT,
        LAST_WORD,
        LEARNED,
        LIKELIEST,
        LOOPS,
        PRESERVATION,
        READER,
        RECALL,
        SLOPES,
        UNLIKELY,
    )
}
"""Experiments with a model of the user's."""

ABOUT_PATCHES = frozenset(
    {"copying", "increment", "learned", "loops", "reader", "scratch", "slopes"}
)
"""Those that ask what it does to write the true next token."""
