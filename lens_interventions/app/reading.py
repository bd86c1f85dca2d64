"""Readings: residual streams of a prompt and their statistics, kept for the next click."""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from ..intervention.patch import NextTokenPatch
from ..lens.logit_lens import logit_lens
from ..lens.recorded_streams import RecordedStreams
from ..lens.statistics import STATISTICS, Statistic, drawn
from ..lens.trajectory import Trajectory
from ..model.exclusive import exclusive_use
from ..model.hooks import hooked
from ..model.points import point_labels
from ..model.residuals import residual_chunks
from ..model.tokens import token_batch
from ..model.vocabulary import token_ids
from .chosen_patch import patch_key
from .state import State
from .subject import Subject
from .worker import Emit, reports_to

TOP_K = 10


@dataclass(frozen=True)
class Reading:
    """A lens's reading of one prompt.

    Attributes:
        key: the values that it was made from, for results that are made from it.
        streams: the residual streams at every point between blocks.
        trajectory: their statistics.
    """

    key: Hashable
    streams: RecordedStreams
    trajectory: Trajectory

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor in it, by name."""
        return {**self.streams.streams, **self.trajectory.tensors()}


def statistics() -> dict[str, Statistic]:
    """The statistics to choose from, without those that compare with a chosen point."""
    return {name: row for name, row in drawn().items() if row.target != "compare"}


def options_of(subject: Subject, state: State) -> dict[str, Any]:
    """The options of `logit_lens` for a state, without the lens.

    Raises `ValueError` for a statistic that does not exist or needs a token to watch.
    """
    if state.statistic not in statistics():
        raise ValueError(
            f"unknown statistic {state.statistic!r}; choose one of {', '.join(statistics())}"
        )
    statistic = STATISTICS[state.statistic]
    watch = watched(subject, state)
    if statistic.target == "watched" and not watch:
        raise ValueError(f"{statistic.name} needs a token to watch: name one, or click one")
    options: dict[str, Any] = {"top_k": min(TOP_K, int(subject.bridge.cfg.d_vocab))}
    if watch:
        options["watch"] = watch
    if len(statistic.divergences) > 1:
        options["divergences"] = [*statistic.divergences]
    if state.last is not None:
        if state.last < 1:
            raise ValueError(f"last must be at least 1 position, got {state.last}")
        options["positions"] = slice(-state.last, None)
    return options


def watched(subject: Subject, state: State) -> list[int]:
    """Ids of the watched tokens.

    Raises `ValueError` if the text is not one token of the model.
    """
    named = token_ids(subject.bridge, state.watch_text) if state.watch_text else []
    return list(dict.fromkeys([*token_ids(subject.bridge, state.watch), *named]))


def read(
    subject: Subject,
    state: State,
    tokens: Sequence[int],
    emit: Emit,
    *,
    patch: NextTokenPatch | None = None,
    second: bool = False,
) -> Reading:
    """The reading of some tokens for a state, under a patch or with the second model.

    `emit` gets the progress.
    """
    model = subject.model(second=second)
    options = options_of(subject, state)

    report = reports_to(emit)
    lens = subject.chosen_lens(state, report, second=second)

    key = (
        tuple(tokens),
        state.lens,
        repr(options),
        None if patch is None else patch_key(state),
        second,
    )

    def make() -> Reading:
        streams = _record(model, tokens, patch)
        trajectory = logit_lens(
            model,
            streams,
            lens=lens,
            progress=report,
            **options,
        )
        return Reading(key, streams, trajectory)

    return subject.kept(("reading", key), make)


def read_position(subject: Subject, state: State, reading: Reading, column: int) -> Trajectory:
    """Read one column again, watching every token that leads at one of its layers."""
    lens = subject.chosen_lens(state)
    position = int(reading.trajectory.positions[0, column])
    watch = reading.trajectory.leaders(column)
    return subject.kept(
        ("position", reading.key, position),
        lambda: logit_lens(
            subject.bridge, reading.streams, lens=lens, positions=[position], watch=watch
        ),
    )


@torch.no_grad()
def _record(
    bridge: TransformerBridge, tokens: Sequence[int], patch: NextTokenPatch | None
) -> RecordedStreams:
    batch = token_batch(bridge, [list(tokens)])
    labels = point_labels(int(bridge.cfg.n_layers))
    with exclusive_use(bridge), ExitStack() as stack:
        if patch is not None:
            stack.enter_context(hooked(bridge, patch.fwd_hooks(bridge, batch.tokens)))
        # A text this short is one chunk.
        ((_, streams),) = residual_chunks(bridge, batch, labels)
    return RecordedStreams(batch, {label: stream.clone() for label, stream in streams.items()})
