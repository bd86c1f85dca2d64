"""What conditions are called."""

from ..design.conditions import NO_PATCH, Arm

SOURCES = {
    "true": "true next token",
    "random": "random token",
    "shuffled": "shuffled next token",
    "current": "current token",
    "guess": "the layer's guess",
    "direction": "random direction",
}


def arm_label(arm: Arm, *, with_cell: bool = False) -> str:
    """An arm in words."""
    if arm == NO_PATCH:
        return "no patch"
    name = SOURCES[arm.source]
    return f"{name} ({arm.cell})" if with_cell else name


def condition_label(arm: Arm, rule: str) -> str:
    """An arm and the rule it samples by."""
    return f"{arm_label(arm, with_cell=True)}, {rule}"
