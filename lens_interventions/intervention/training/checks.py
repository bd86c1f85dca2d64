"""Checks of the options of a training, before it begins."""

import math
from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.argument_types import (
    require_counts,
    require_counts_or_none,
    require_numbers,
    require_whole_numbers,
)
from ...model.other_weights import name_of_weights
from ...model.partial_run import refuse_late_hooks
from ..adapted_reader import require_adapt
from ..learned_write import LearnedWrite
from ..patch import NextTokenPatch
from ..sources import SOURCES
from .options import TrainingOptions


def check_write(
    bridge: TransformerBridge,
    patch: NextTokenPatch,
    rank: int | None,
    source: str,
    steps: int,
    save_every: int,
) -> None:
    """Raise `ValueError` or `TypeError` unless such a write can be trained on the model."""
    require_counts(steps=steps, save_every=save_every)
    require_counts_or_none(rank=rank)
    if source not in list(SOURCES):  # which hashes nothing
        raise ValueError(f"source must be one of {', '.join(SOURCES)}; got {source!r}")
    if rank is not None and rank > int(bridge.cfg.d_model):
        raise ValueError(
            f"rank must be from 1 to the model's width {bridge.cfg.d_model}, or None for a full "
            f"matrix; got {rank}"
        )
    # Checks the layers, and that the model has the embedding.
    patch.bind(bridge)
    refuse_late_hooks(bridge, patch.layers[0])


def check_reach(
    pieces: Sequence[Int[Tensor, " _"]], options: TrainingOptions, *, purpose: str
) -> None:
    """Raise `ValueError` if the write changes no prediction of the pieces, for a purpose."""
    longest = max(map(len, pieces))
    # The last token is predicted one position before it, and that position is not patched.
    if options.first_position > longest - 3:
        raise ValueError(
            f"the write begins at position {options.first_position} and changes predictions at "
            f"later ones, but in pieces of at most {longest} tokens to {purpose} the last "
            f"prediction is at position {longest - 2}: lower first_position, or give a larger "
            "window or longer texts"
        )


def check_strength(strength: float | None, options: TrainingOptions) -> None:
    """Raise `ValueError` or `TypeError` for a strength that is none, or makes options useless."""
    if strength is None:
        return
    require_numbers(strength=strength)
    if not math.isfinite(strength):
        raise ValueError(f"strength must be finite, got {strength}")
    if options.write_penalty:
        raise ValueError(
            f"a write of strength {strength} is fixed: a write_penalty of {options.write_penalty} "
            "cannot make it shorter; leave out one of them"
        )
    if options.input_gate:
        raise ValueError(
            f"a write of strength {strength} is the embedding itself, which no gate scales: leave "
            "out input_gate, or the strength"
        )


def check_adapter_rank(bridge: TransformerBridge, adapter_rank: int) -> None:
    """Raise `ValueError` or `TypeError` unless the model's weights can be updated at this rank."""
    require_whole_numbers(adapter_rank=adapter_rank)
    if not 1 <= adapter_rank <= int(bridge.cfg.d_model):
        raise ValueError(
            f"adapter_rank must be from 1 to the model's width {bridge.cfg.d_model}; got "
            f"{adapter_rank}"
        )


def check_reader(
    bridge: TransformerBridge,
    strength: float | None,
    adapt: str | None,
    adapter_rank: int | None,
    options: TrainingOptions,
) -> None:
    """Raise `ValueError` or `TypeError` unless the options of a reader fit each other."""
    if adapt is None:
        if strength is not None:
            raise ValueError(
                f"a write of strength {strength} leaves nothing to train: give adapt='attention' "
                "too"
            )
        if adapter_rank is not None:
            raise ValueError(
                f"adapter_rank={adapter_rank} is the rank of what adapt= trains: give "
                "adapt='attention' too"
            )
        return
    check_strength(strength, options)
    require_adapt(adapt)
    if name_of_weights(bridge) is not None:
        raise ValueError("a reader is on the bridge: leave its `with` block to train another")
    if adapter_rank is not None:
        check_adapter_rank(bridge, adapter_rank)


def check_base(
    bridge: TransformerBridge,
    base: LearnedWrite,
    layers: tuple[int, ...],
    adapt: str | None,
    options: TrainingOptions,
) -> None:
    """Raise `ValueError` unless a training with these options can begin on top of the base."""
    if adapt is not None or base.reader is not None:
        raise ValueError("a base cannot be combined with a reader: leave out adapt, or the base")
    base.require_fits(bridge, base.patch())
    expected = (layers, options.embedding, options.scale, options.first_position)
    found = (base.layers, base.embedding, base.scale, base.first_position)
    if found != expected:
        raise ValueError(
            "the base must have the layers, embedding, scale and first_position of the training, "
            f"{expected}; it has {found}"
        )
