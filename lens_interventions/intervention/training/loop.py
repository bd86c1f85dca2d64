"""The loop that trains a write and its reader: steps, evaluations, checkpoints."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..._files import require_writable
from ..._progress import steps
from ...model.fast_linears import Forwards, fast_forwards
from ...model.other_weights import other_weights
from ...model.partial_run import replaced_forwards
from ...model.product import is_faster
from ..adapted_reader import adapted_weights
from ..bound_patch import BoundPatch
from ..learned_write import LearnedWrite
from .corpus import TrainingCorpus, visited
from .loss import patched_nats
from .options import TrainingOptions
from .parameters import WriteParameters
from .reader_parameters import ReaderParameters
from .state import TrainingState

# The most rows of both streams that go through the late blocks at a time, since their activations
# are kept.
_STREAM_ROWS = 2048


class WriteTraining:
    """One training: its corpus, its parameters and its progress.

    Attributes:
        state: how far it has come.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        bound: BoundPatch,
        parameters: WriteParameters,
        reader: ReaderParameters | None,
        corpus: TrainingCorpus,
        held_out: TrainingCorpus,
        options: TrainingOptions,
        settings: dict[str, Any],
    ) -> None:
        """`settings` identify the training; a checkpoint must have the same."""
        self._bridge, self._bound = bridge, bound
        self._parameters, self._reader = parameters, reader
        self._corpus, self._held_out = corpus, held_out
        self._options, self._settings = options, settings
        self._steps: int = settings["steps"]
        self._late: Forwards = []
        self._frozen: Forwards = []
        leaves = parameters.leaves | ({} if reader is None else reader.leaves)
        optimizer = torch.optim.AdamW(leaves.values(), weight_decay=options.weight_decay)
        self.state = TrainingState(leaves, optimizer)

    def to_the_end(self, checkpoint: Path | None, save_every: int, progress: bool) -> None:
        """Make the remaining steps, or stop when patience ends."""
        state = self.state
        if checkpoint is not None:
            require_writable(checkpoint)
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint, self._settings)
        made = steps(range(state.step, self._steps))
        self._prepare()
        with tqdm(total=self._steps, initial=state.step, disable=not progress, unit="step") as bar:
            while True:
                last = state.step == self._steps
                due = last or state.step % self._options.evaluate_every == 0
                if due and (not state.held_out or state.held_out[-1]["step"] < state.step):
                    self._evaluate()
                if last or self._out_of_patience():
                    break
                next(made)
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

    def _prepare(self) -> None:
        """Multiply with the unembedding and in the blocks by oneDNN, if that is faster here."""
        bridge, bound, state = self._bridge, self._bound, self.state
        if state.fast is None:
            state.fast = is_faster(bound.readout.weight)
        if not state.fast:
            return
        self._bound = replace(bound, readout=bound.readout.for_training())
        others = bridge.blocks
        if self._reader is None:  # which has other weights in the late blocks at every step
            late, others = others[bound.patch.layers[0] :], others[: bound.patch.layers[0]]
            self._late = fast_forwards(late, constant=True, known_faster=True)
        self._frozen = [*self._late, *fast_forwards(others, known_faster=True)]

    def best_write(self) -> LearnedWrite:
        """The write with the lowest held-out loss, and its reader."""
        write = with_tensors(self._bound, self._parameters.tensors(self.state.best))
        if self._reader is None:
            return write
        reader = self._reader.reader(self.state.best)
        return replace(write, reader=reader, fingerprint=reader.name)

    @torch.enable_grad()
    def _step(self) -> None:
        state, options = self.state, self._options
        indices, seeds = visited(
            len(self._corpus.pieces), options.batch_size, state.step, self._settings["seed"]
        )
        n_predicted = sum(len(self._corpus.pieces[i]) - 1 for i in indices)
        nats = self._nats(self._corpus, indices, seeds, state.leaves, backward=1 / n_predicted)
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
        state, corpus = self.state, self._held_out
        indices = range(len(corpus.pieces))
        # The same draws at every evaluation.
        nats = self._nats(corpus, indices, torch.tensor(indices), state.values())
        losses = _per_token(*nats, sum(map(len, corpus.pieces)) - len(indices))
        if not math.isfinite(losses["loss"]):
            raise ValueError(
                f"the held-out loss is {losses['loss']} after {state.step} steps: look for a hook "
                "or a strength that makes such values, lower the learning rate, or load the model "
                "in float32"
            )
        state.held_out.append({"step": state.step, **losses})
        if losses["loss"] < state.best_loss:
            state.best_loss, state.best_step = losses["loss"], state.step
            state.best = state.values()

    def _nats(
        self,
        corpus: TrainingCorpus,
        indices: Sequence[int],
        seeds: Tensor,
        leaves: Mapping[str, Tensor],
        backward: float | None = None,
    ) -> tuple[float, float]:
        """Nats of some pieces with the patch and without; gradients are added to the leaves."""
        patched = clean = 0.0
        remaining = iter(seeds)
        for group in corpus.groups(indices, _STREAM_ROWS // 2):
            group_seeds = torch.stack([next(remaining) for _ in group])
            with replaced_forwards(self._frozen):
                batch = corpus.batch(group, group_seeds, self._bound.readout)
            write = with_tensors(self._bound, self._parameters.tensors(leaves))
            bound = replace(self._bound, patch=write.patch())
            # The reader is off while the batch is made: the residual that enters the layer, and the
            # loss without a patch, are those of the model as it is.
            with self._adapted(leaves), replaced_forwards(self._late):
                nats = patched_nats(self._bridge, bound, batch.resid, batch.text, backward=backward)
            patched += float(nats.sum())
            clean += float(batch.clean_nats.sum())
        return patched, clean

    def _adapted(self, leaves: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        if self._reader is None:
            return nullcontext()
        reader = self._reader.reader(leaves)
        weights = adapted_weights(self._bridge, reader.down, reader.up)
        return other_weights(self._bridge, weights, "those of a reader in training")

    def _out_of_patience(self) -> bool:
        state, patience = self.state, self._options.patience
        since = sum(record["step"] > state.best_step for record in state.held_out)
        return patience is not None and since >= patience


def with_tensors(bound: BoundPatch, tensors: Mapping[str, Tensor | None]) -> LearnedWrite:
    """The write of a patch with these tensors."""
    assert isinstance(bound.patch.mode, LearnedWrite)
    return replace(bound.patch.mode, **tensors)  # type: ignore[arg-type]


def _per_token(patched: float, clean: float, n_predicted: int) -> dict[str, float]:
    loss, clean_loss = patched / n_predicted, clean / n_predicted
    return {"loss": loss, "clean_loss": clean_loss, "change": loss - clean_loss}
