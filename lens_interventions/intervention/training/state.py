"""The progress of a training, and the checkpoint that keeps it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._files import load_tensors, save_tensors
from .optimizer_state import optimizer_tensors, restore_optimizer

# What a file keeps besides tensors, and settings to know the training again.
_PROGRESS = ("step", "best_step", "best_cost", "curve", "held_out", "fast")


@dataclass
class TrainingState:
    """Everything that changes while a write is trained.

    Attributes:
        leaves: the trained tensors.
        optimizer: over those leaves, in their order.
        best: values of the leaves with the lowest held-out cost so far: the loss and the penalties.
        best_step, best_cost: the step with that cost, and the cost in nats per token.
        step: how many steps have been made.
        curve: a record for each step.
        held_out: a record for each evaluation.
        fast: whether products are the faster ones; None before that was tried. A training that is
            continued goes on as it began, so that it ends in the same bits.
    """

    leaves: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_cost: float = float("inf")
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    fast: bool | None = None

    def values(self) -> dict[str, Tensor]:
        """A copy of the leaves' values."""
        return {name: leaf.detach().clone() for name, leaf in self.leaves.items()}

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write one safetensors file."""
        tensors = {f"leaf.{name}": leaf.detach() for name, leaf in self.leaves.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= optimizer_tensors(self.optimizer, self.leaves)
        kept = {"settings": settings, **{name: getattr(self, name) for name in _PROGRESS}}
        save_tensors(path, tensors, kind="training", rest=kept)

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Continue from a file that `save` wrote.

        Raises `ValueError` if the file belongs to another training or is damaged.
        """
        tensors, kept = load_tensors(path, kind="training")
        try:
            self._restore(path, tensors, kept, settings)
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it") from error

    def _restore(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        kept: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        here, there = json.loads(json.dumps(settings)), kept["settings"]
        if here != there:
            other = sorted(k for k in {*here, *there} if here.get(k) != there.get(k))
            # The learning rate at each step depends on how many there will be.
            fixed = "; the number of steps cannot be changed" if "steps" in other else ""
            raise ValueError(
                f"{path} belongs to another training, which differs in {', '.join(other)}: remove "
                f"it, or give another path{fixed}"
            )
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(tensors[f"leaf.{name}"])
        restore_optimizer(self.optimizer, self.leaves, tensors)
        self.best = {
            name: tensors[f"best.{name}"].to(leaf.device) for name, leaf in self.leaves.items()
        }
        for name in _PROGRESS:
            setattr(self, name, kept[name])
