"""The loop that trains a write: steps, evaluations, checkpoints."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..._tensor_file import load_tensors, save_tensors
from ..bound_patch import BoundPatch
from ..learned_write import LearnedWrite
from ..sources import SOURCES
from .loss import patched_nats
from .options import TrainingOptions
from .parameters import WriteParameters
from .windows import TrainingWindows, visited

# Rows of both streams that go through the late blocks at a time, as their activations are kept.
_STREAM_ROWS = 2048


class WriteTraining:
    """One training: its texts, its parameters and how far it has come.

    Attributes:
        state: how far.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        bound: BoundPatch,
        parameters: WriteParameters,
        windows: TrainingWindows,
        held_out: TrainingWindows,
        options: TrainingOptions,
        settings: dict[str, Any],
    ) -> None:
        """`settings` tell one training from another; a checkpoint must have the same."""
        self._bridge, self._bound, self._parameters = bridge, bound, parameters
        self._windows, self._held_out = windows, held_out
        self._options, self._settings = options, settings
        self._steps: int = settings["steps"]
        leaves = parameters.leaves
        optimizer = torch.optim.AdamW(leaves.values(), weight_decay=options.weight_decay)
        self.state = TrainingState(leaves, optimizer, parameters.detached())

    def to_the_end(self, checkpoint: Path | None, save_every: int, progress: bool) -> None:
        """All steps that are left, or until patience ends."""
        state = self.state
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint, self._settings)
        with tqdm(total=self._steps, initial=state.step, disable=not progress, unit="step") as bar:
            while True:
                last = state.step == self._steps
                due = last or state.step % self._options.evaluate_every == 0
                if due and (not state.held_out or state.held_out[-1]["step"] < state.step):
                    self._evaluate()
                if last or self._out_of_patience():
                    break
                self._step()
                bar.set_postfix(
                    loss=f"{state.curve[-1]['loss']:.4f}",
                    change=f"{state.curve[-1]['change']:+.4f}",
                    held_out=f"{state.held_out[-1]['change']:+.4f}",
                )
                bar.update()
                if checkpoint is not None and state.step % save_every == 0:
                    state.save(checkpoint, self._settings)
        if checkpoint is not None:
            state.save(checkpoint, self._settings)

    def best_write(self) -> LearnedWrite:
        """The write with the lowest held-out loss."""
        return with_tensors(self._bound, self._parameters.tensors(self.state.best))

    @torch.enable_grad()
    def _step(self) -> None:
        state, options = self.state, self._options
        indices, seeds = visited(
            len(self._windows.windows), options.batch_size, state.step, self._settings["seed"]
        )
        n_predicted = sum(len(self._windows.windows[i]) - 1 for i in indices)
        nats = self._nats(
            self._windows, indices, seeds, self._parameters.leaves, backward=1 / n_predicted
        )
        length = torch.nn.utils.clip_grad_norm_(state.leaves.values(), options.max_gradient_norm)
        rate = options.learning_rate_at(state.step, self._steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.optimizer.zero_grad()
        record = {"step": state.step, **_per_token(*nats, n_predicted)}
        state.curve.append({**record, "learning_rate": rate, "gradient_norm": float(length)})
        state.step += 1

    def _evaluate(self) -> None:
        state, windows = self.state, self._held_out
        indices = range(len(windows.windows))
        # The same draws at every evaluation.
        nats = self._nats(windows, indices, torch.tensor(indices), self._parameters.detached())
        losses = _per_token(*nats, sum(map(len, windows.windows)) - len(indices))
        state.held_out.append({"step": state.step, **losses})
        if losses["loss"] < state.best_loss:
            state.best_loss, state.best_step = losses["loss"], state.step
            state.best = self._parameters.detached()

    def _nats(
        self,
        windows: TrainingWindows,
        indices: Sequence[int],
        seeds: Tensor,
        leaves: Mapping[str, Tensor],
        backward: float | None = None,
    ) -> tuple[float, float]:
        """Nats of some windows with the patch and without; gradients are added to the leaves."""
        patched = clean = 0.0
        remaining = iter(seeds)
        for group in windows.groups(indices, _STREAM_ROWS // 2):
            batch = windows.batch(group, torch.stack([next(remaining) for _ in group]))
            write = with_tensors(self._bound, self._parameters.tensors(leaves))
            bound = replace(self._bound, patch=write.patch())
            nats = patched_nats(self._bridge, bound, batch.resid, batch.text, backward=backward)
            patched += float(nats.sum())
            clean += float(batch.clean_nats.sum())
        return patched, clean

    def _out_of_patience(self) -> bool:
        state, patience = self.state, self._options.patience
        since = sum(record["step"] > state.best_step for record in state.held_out)
        return patience is not None and since >= patience


@contextmanager
def frozen(bridge: TransformerBridge) -> Iterator[None]:
    """No parameter of the model asks for a gradient inside; flags come back as they were."""
    modules = (bridge, bridge.original_model)
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    asking = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def with_tensors(bound: BoundPatch, tensors: Mapping[str, Tensor | None]) -> LearnedWrite:
    """The write of a patch, with other tensors."""
    assert isinstance(bound.patch.mode, LearnedWrite)
    return replace(bound.patch.mode, **tensors)  # type: ignore[arg-type]


def initial_parameters(
    bound: BoundPatch,
    windows: TrainingWindows,
    rank: int | None,
    options: TrainingOptions,
    seed: int,
) -> WriteParameters:
    """What is trained, at its start, for a patch whose write has no tensors yet."""
    patch = bound.patch
    table = bound.embeddings[patch.layers[0]]
    assert isinstance(patch.mode, LearnedWrite)
    sizes = windows.typical_sizes(patch.layers, options.first_position)
    d_model = table.weight.shape[-1]
    dtype = torch.promote_types(table.weight.dtype, torch.float32)
    if options.scale == "norm":
        lengths = sizes * d_model**0.5
    else:
        every = torch.linalg.vector_norm(table.weight, dim=-1, dtype=dtype)
        lengths = (every.median() * table.scale).expand_as(sizes)
    return WriteParameters(
        rank=rank,
        reads_tokens=SOURCES[patch.mode.source].role != "no news",
        bias=options.bias,
        input_gate=options.input_gate,
        resid_size=sizes,
        embedding_length=lengths,
        d_model=d_model,
        seed=seed,
        dtype=dtype,
        device=table.weight.device,
    )


def _per_token(patched: float, clean: float, n_predicted: int) -> dict[str, float]:
    loss, clean_loss = patched / n_predicted, clean / n_predicted
    return {"loss": loss, "clean_loss": clean_loss, "change": loss - clean_loss}


@dataclass
class TrainingState:
    """All that changes while a write is trained.

    Attributes:
        leaves: what is trained.
        optimizer: over those leaves, in their order.
        best: values of the leaves with the lowest held-out loss so far.
        best_step, best_loss: when that was, and the loss in nats a token.
        step: how many steps were made.
        curve: a record for each step.
        held_out: a record for each evaluation.
    """

    leaves: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    best: dict[str, Tensor]
    best_step: int = 0
    best_loss: float = float("inf")
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write one safetensors file."""
        tensors = {f"leaf.{name}": leaf.detach() for name, leaf in self.leaves.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, leaf in self.leaves.items():
            for key, value in self.optimizer.state[leaf].items():
                tensors[f"adam.{name}.{key}"] = value
        kept = {
            "settings": settings,
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "curve": self.curve,
            "held_out": self.held_out,
        }
        save_tensors(path, tensors, kind="training", rest=kept)

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Take over what `save` wrote.

        Raises `ValueError` for a file of another training or another kind.
        """
        tensors, kept = load_tensors(path, kind="training")
        if kept["settings"] != json.loads(json.dumps(settings)):
            here, there = json.loads(json.dumps(settings)), kept["settings"]
            other = sorted(k for k in {*here, *there} if here.get(k) != there.get(k))
            raise ValueError(
                f"{path} is of another training, which differs in {', '.join(other)}: remove it, "
                "or give another path"
            )
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(tensors[f"leaf.{name}"])
                prefix = f"adam.{name}."
                # AdamW keeps its count of steps on the CPU, the moments beside their leaf.
                self.optimizer.state[leaf] = {
                    key.removeprefix(prefix): value if value.ndim == 0 else value.to(leaf.device)
                    for key, value in tensors.items()
                    if key.startswith(prefix)
                }
        self.best = {
            name: tensors[f"best.{name}"].to(leaf.device) for name, leaf in self.leaves.items()
        }
        for name in ("step", "best_step", "best_loss", "curve", "held_out"):
            setattr(self, name, kept[name])
