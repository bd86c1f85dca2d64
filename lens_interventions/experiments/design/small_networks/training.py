"""Training a network from scratch, resumably."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...._counter_random import random_integers
from ...._files import load_tensors, require_writable, save_tensors
from ...._progress import steps
from ....intervention.training.optimizer_state import optimizer_tensors, restore_optimizer
from ...engine.json_values import differences

_KIND = "scratch"

Batches = Callable[[int], tuple[Int[Tensor, "text pos"], Int[Tensor, " text"]]]
"""The texts of a step, and a seed for each that no other text has."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Optimization:
    """How a network is trained.

    Attributes:
        steps: the number of steps of the optimizer, AdamW.
        learning_rate: the learning rate, times a cosine that falls from one at the first step to
            zero after the last.
        warm_up: steps over which it rises from zero, under the same cosine.
        weight_decay: the weight decay of AdamW, on every parameter.
        evaluate_every: steps between evaluations; a stopped training continues from the last one.
    """

    steps: int
    learning_rate: float
    warm_up: int
    weight_decay: float
    evaluate_every: int

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        rising = min((step + 1) / self.warm_up, 1.0)
        return self.learning_rate * rising * (1 + math.cos(math.pi * step / self.steps)) / 2


N = TypeVar("N", bound=nn.Module)

Loss = Callable[[N, Int[Tensor, "text pos"], Int[Tensor, " text"]], Tensor]
"""The loss of a network on the texts of a step, given their seeds; nats a token."""


class TrainingRun(Generic[N]):
    """A network during its training.

    Attributes:
        network: as it is now.
        step: how many steps have been made.
        records: the measurements so far.
    """

    def __init__(
        self,
        network: N,
        loss: Loss[N],
        options: Optimization,
        batches: Batches,
        described: Mapping[str, Any],
    ) -> None:
        """A training before its first step. `described`, in JSON values, identifies it."""
        self.network = network
        self._loss, self._options, self._batches = loss, options, batches
        self._described = described
        # A parameter that does not affect the loss has no gradient, and stays unchanged.
        self._optimizer = torch.optim.AdamW(
            network.parameters(), weight_decay=options.weight_decay, fused=True
        )
        self.step = 0
        self.records: list[Record] = []

    def to_the_end(
        self,
        evaluate: Callable[["TrainingRun[N]"], list[Record]],
        file: Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the remaining steps, and add the results of `evaluate` to `records`.

        It is called before the first step, every `evaluate_every` steps, and after the last, and
        each time `file` is written. `settings` are further values that identify this training.

        Raises `ValueError` if the file is damaged or belongs to another training.
        """
        described = {**self._described, **asdict(self._options), **(settings or {})}
        known = json.loads(json.dumps(described))
        if file is not None:
            require_writable(file)
            if file.is_file():
                self._load(file, known)

        def keep() -> None:
            if not self.records or self.records[-1]["step"] < self.step:
                with torch.no_grad():
                    self.records += [{"step": self.step, **record} for record in evaluate(self)]
                if file is not None:
                    self._save(file, known)

        for _ in steps(range(self.step, self._options.steps)):
            if self.step % self._options.evaluate_every == 0:
                keep()
            self._make_step()
        keep()

    @torch.enable_grad()
    def _make_step(self) -> None:
        self._loss(self.network, *self._batches(self.step)).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = self._options.learning_rate_at(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1

    def _save(self, file: Path, settings: Mapping[str, Any]) -> None:
        parameters = dict(self.network.named_parameters())
        tensors = {f"network.{name}": value.detach() for name, value in parameters.items()}
        if self.step < self._options.steps:
            tensors |= optimizer_tensors(self._optimizer, parameters)
        # The header of a safetensors file has a limit, which long curves would pass.
        curves = bytearray(json.dumps(self.records).encode())
        tensors["records"] = torch.frombuffer(curves, dtype=torch.uint8)
        rest = {"settings": settings, "step": self.step}
        save_tensors(file, tensors, kind=_KIND, rest=rest)

    @torch.no_grad()
    def _load(self, file: Path, settings: Mapping[str, Any]) -> None:
        tensors, rest = load_tensors(file, kind=_KIND)
        if rest.get("settings") != settings:
            other = "; ".join(differences(settings, rest.get("settings")))
            raise ValueError(f"{file} is of another training: remove it ({other})")
        try:
            _copy_weights(self.network, tensors)
            restore_optimizer(self._optimizer, dict(self.network.named_parameters()), tensors)
            self.step = rest["step"]
            self.records = json.loads(tensors["records"].numpy().tobytes())
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{file} is damaged ({error}): remove it") from error


def mean_nats(logits: Float[Tensor, "text pos d_vocab"], tokens: Int[Tensor, "text pos"]) -> Tensor:
    """The mean loss of a batch, in nats per token."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def stream_batches(training: Int[Tensor, " token"], length: int, size: int, seed: int) -> Batches:
    """For each step, `size` texts of `length` tokens from random places of a stream."""
    offset = torch.arange(length)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        number = torch.arange(step * size, (step + 1) * size)
        start = random_integers(len(training) - length, seed, number)
        return training[start[:, None] + offset], number

    return batch


@torch.no_grad()
def load_network(network: nn.Module, file: Path) -> dict[str, Any]:
    """Give a network the weights of a training's file, also of one that is not finished.

    Returns what identifies the training, its options among it.
    """
    tensors, rest = load_tensors(file, kind=_KIND)
    _copy_weights(network, tensors)
    return dict(rest["settings"])


def _copy_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        parameter.copy_(tensors[f"network.{name}"])
