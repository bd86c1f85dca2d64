"""Checks that the settings of several experiments share."""

from collections.abc import Sequence
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from ...intervention.modes import MODES
from ...intervention.sources import source_names
from ...intervention.training.options import TrainingOptions
from ...model.argument_types import require_counts


def require_at_least(settings: Any, least: int, *names: str) -> None:
    """Raise an error unless each of these fields is a whole number from `least` up.

    `ValueError` for one that is smaller, `TypeError` for anything else.
    """
    require_counts(least=least, **{name: getattr(settings, name) for name in names})


def require_different(settings: Any, *names: str) -> None:
    """Raise `ValueError` if one of these fields names a value twice."""
    for name in names:
        values = getattr(settings, name)
        if len(set(values)) < len(values):
            raise ValueError(f"{name} must be different values, got {values}")


def require_modes(modes: Sequence[str]) -> None:
    """Raise `ValueError` for a name that is no mode of a patch."""
    if set(modes) - set(MODES):
        raise ValueError(f"modes must be some of {', '.join(MODES)}; got {modes}")


def require_bias(controls: Sequence[str], options: TrainingOptions) -> None:
    """Raise `ValueError` if nothing is left to train for a control that writes only a bias."""
    alone = sorted(set(controls) & set(source_names("no news")))
    if alone and not options.bias:
        raise ValueError(f"the control {alone[0]!r} writes only a bias: options.bias must be True")


def require_room(bridge: TransformerBridge, **longest: int) -> None:
    """Raise `ValueError` if the longest text that a setting makes is more than the model reads.

    It would be read in pieces, and what it repeats would be out of sight.
    """
    context = int(bridge.cfg.n_ctx)
    for name, tokens in longest.items():
        if tokens > context:
            raise ValueError(
                f"{name} makes texts of {tokens} tokens, and the model reads {context} at once: "
                f"make {name} smaller"
            )


def require_comparable(seeds: Sequence[int], options: TrainingOptions) -> None:
    """Raise `ValueError` unless seeds differ and all trainings make the same steps."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"seeds must be one or more different numbers from 0 on, got {seeds}")
    if options.patience is not None:
        raise ValueError(
            f"patience is {options.patience}: trainings that are compared make the same steps, so "
            "it must be None"
        )
