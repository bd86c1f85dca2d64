"""The loop that trains a write and its reader: steps, evaluations, checkpoints."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._progress import progress_bar, show_as_done, steps
from ...model.fast_linears import Forwards, fast_forwards
from ...model.other_weights import other_weights
from ...model.partial_run import run_late_blocks
from ...model.product_trials import is_faster
from ...model.replaced_forwards import replaced_forwards
from ..adapted_reader import adapted_weights
from ..bound_patch import BoundPatch
from ..learned_write import LearnedWrite
from .corpus import Corpora, CorpusBatch, TrainingCorpus, Visit, visited
from .loss import changed_nats, patched_losses, patched_stream
from .options import TrainingOptions
from .parameters import WriteParameters
from .reader_parameters import ReaderParameters
from .state import TrainingState

# The most rows of both streams that go through the late blocks at a time, since their activations
# are kept.
_STREAM_ROWS = 2048


class DivergenceError(ValueError):
    """A held-out loss is not finite.

    Attributes:
        best: the write of the best step before, if one was better than no write.
    """

    best: LearnedWrite | None = None


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
        corpora: Corpora,
        preserved: Corpora | None,
        options: TrainingOptions,
        settings: dict[str, Any],
    ) -> None:
        """`settings` identify the training; a checkpoint must have the same."""
        self._bridge, self._bound = bridge, bound
        self._parameters, self._reader = parameters, reader
        self._corpora, self._preserved = corpora, preserved
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
        if checkpoint is not None and checkpoint.is_file():
            state.load(checkpoint, self._settings)
        made = steps(range(state.step, self._steps))
        self._prepare()
        with progress_bar(
            total=self._steps, initial=state.step, shown=progress, unit="step", desc="training"
        ) as bar:
            while True:
                last = state.step == self._steps
                due = last or state.step % self._options.evaluate_every == 0
                if due and (not state.held_out or state.held_out[-1]["step"] < state.step):
                    try:
                        self._evaluate()
                    except DivergenceError:
                        if checkpoint is not None:  # it has the best step
                            state.save(checkpoint, self._settings)
                        raise
                if last or self._out_of_patience():
                    show_as_done(bar)
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
        """The write of the best step, and its reader."""
        write = with_tensors(self._bound, self._parameters.tensors(self.state.best))
        if self._reader is None:
            return write
        reader = self._reader.reader(self.state.best)
        return replace(write, reader=reader, fingerprint=reader.name)

    @torch.enable_grad()
    def _step(self) -> None:
        state, options = self.state, self._options
        losses = self._losses(self._visited(self._corpora.training), state.leaves, backward=True)
        if self._preserved is not None:
            visit = self._visited(self._preserved.training)
            losses["kl"] = self._kl(visit, state.leaves, backward=True)
        length = torch.nn.utils.clip_grad_norm_(state.leaves.values(), options.max_gradient_norm)
        rate = options.learning_rate_at(state.step, self._steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.optimizer.zero_grad()
        record = {"step": state.step, **losses, "learning_rate": rate}
        state.curve.append({**record, "gradient_norm": float(length)})
        state.step += 1

    def _evaluate(self) -> None:
        state, options = self.state, self._options
        values = state.values()
        losses = self._losses(Visit.of_all(self._corpora.held_out), values)
        if self._preserved is not None:
            losses["kl"] = self._kl(Visit.of_all(self._preserved.held_out), values)
        if wrong := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise DivergenceError(
                f"the held-out {wrong[0]} is {losses[wrong[0]]} after {state.step} steps: look for "
                "a hook or a strength that makes such values, lower the learning rate, or load the "
                "model in float32"
            )
        state.held_out.append({"step": state.step, **losses})
        cost = losses["loss"] + options.write_penalty * losses["write_length"]
        cost += options.change_penalty * losses.get("kl", 0.0)
        if cost < state.best_cost:
            state.best_cost, state.best_step, state.best = cost, state.step, values

    def _visited(self, corpus: TrainingCorpus) -> Visit:
        """The pieces that the next step trains on."""
        size, seed = self._options.batch_size, self._settings["seed"]
        return Visit(corpus, *visited(len(corpus.pieces), size, self.state.step, seed))

    def _losses(
        self, visit: Visit, leaves: Mapping[str, Tensor], *, backward: bool = False
    ) -> dict[str, float]:
        """Means over predicted tokens; the gradients of the loss are added to the leaves."""
        patched = clean = written = 0.0
        for bound, batch in self._batches(visit, leaves):
            with self._training_weights(leaves):
                nats, shares = patched_losses(
                    self._bridge,
                    bound,
                    batch.resid,
                    batch.text,
                    backward=1 / visit.n_predicted if backward else None,
                    write_penalty=self._options.write_penalty,
                )
            patched += float(nats.sum())
            clean += float(batch.clean_nats.sum())
            written += float(shares.sum())
        loss, clean_loss = patched / visit.n_predicted, clean / visit.n_predicted
        return {
            "loss": loss,
            "clean_loss": clean_loss,
            "change": loss - clean_loss,
            "write_length": written / visit.n_predicted,
        }

    def _kl(self, visit: Visit, leaves: Mapping[str, Tensor], *, backward: bool = False) -> float:
        """KL(clean ‖ patched) a token; the gradients of its penalty are added to the leaves."""
        total = 0.0
        cost = self._options.change_penalty / visit.n_predicted if backward else None
        for bound, batch in self._batches(visit, leaves):
            with torch.no_grad(), replaced_forwards(self._frozen):
                clean = run_late_blocks(self._bridge, bound.patch.layers[0], batch.resid)
            with self._training_weights(leaves), torch.set_grad_enabled(backward):
                late = patched_stream(self._bridge, bound, batch.resid, batch.text)
            nats = changed_nats(bound.readout, late, clean, batch.text, backward=cost)
            total += float(nats.sum())
        return total / visit.n_predicted

    def _batches(
        self, visit: Visit, leaves: Mapping[str, Tensor]
    ) -> Iterator[tuple[BoundPatch, CorpusBatch]]:
        """The pieces of a visit, a few at a time, each time with the patch for these leaves.

        The reader is off while a batch is made: the residual that enters the layer, and the loss
        without a patch, are those of the model as it is.
        """
        groups = visit.corpus.groups(visit.indices, _STREAM_ROWS // 2)
        for group, seeds in zip(groups, visit.seeds.split(list(map(len, groups))), strict=True):
            with replaced_forwards(self._frozen):
                batch = visit.corpus.batch(group, seeds, self._bound.readout)
            write = with_tensors(self._bound, self._parameters.tensors(leaves))
            yield replace(self._bound, patch=write.patch()), batch

    def _training_weights(self, leaves: Mapping[str, Tensor]) -> AbstractContextManager[object]:
        """The late blocks as they are trained through: with the reader, or multiplied faster."""
        if self._reader is None:
            return replaced_forwards(self._late)
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
