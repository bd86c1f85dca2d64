"""Options of training a patch."""

import math
from dataclasses import dataclass
from typing import Literal

from ...model.argument_types import (
    python_numbers,
    require_counts,
    require_counts_or_none,
    require_instance,
    require_numbers,
)
from ..learned_write import require_learnable

_NUMBERS = (
    "learning_rate",
    "warmup",
    "final_rate",
    "weight_decay",
    "max_gradient_norm",
    "write_penalty",
    "change_penalty",
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a patch is trained, beyond the arguments of `train_patch`.

    Attributes:
        bias: whether the write has a bias.
        input_gate: whether the write is scaled by a learned sigmoid of the residual.
        embedding: `"W_E"` to read tokens as the model feeds them, `"W_E_centred"` to read the same
            less the mean over the vocabulary, `"W_U"` to read the unembedding.
        scale: `"raw"` to read those vectors as they are, `"norm"` to scale them to the length of
            the residual.
        first_position: positions below it are never patched. 1 spares the first token of a piece,
            where models park attention in a residual much longer than the others.
        window: the most tokens in a piece of text.
        batch_size: pieces in a step.
        learning_rate: the peak learning rate of AdamW, in units of typical residuals and
            embeddings.
        warmup: share of the steps in which the learning rate rises to its peak; then it falls as a
            cosine.
        final_rate: the learning rate at the end of that cosine, as a share of the peak.
        weight_decay: the weight decay of AdamW.
        max_gradient_norm: longer gradients are cut to this length.
        evaluate_every: steps between evaluations on held-out pieces.
        patience: stop after this many evaluations without a lower held-out loss, penalties
            included; None makes all steps, as it should for trainings that are compared.
        held_out_windows: the most pieces that are held out, spread evenly over the held-out text.
        write_penalty: what a write costs that is as long as the residual it enters, in nats. The
            lengths, as shares of the residual's, are averaged over the predicted tokens. What a
            base writes costs nothing.
        change_penalty: what a nat of KL(clean ‖ patched) costs on the texts to `preserve`. Both
            penalties measure what is left after rounding to the model's dtype.

    Raises `ValueError` if an option makes no sense, and `TypeError` if a count or position is not a
    whole number, or another option of another type than here.
    """

    bias: bool = True
    input_gate: bool = False
    embedding: Literal["W_E", "W_E_centred", "W_U"] = "W_E"
    scale: Literal["raw", "norm"] = "raw"
    first_position: int = 1
    window: int = 256
    batch_size: int = 8
    learning_rate: float = 1e-2
    warmup: float = 0.05
    final_rate: float = 0.0
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    evaluate_every: int = 25
    patience: int | None = 5
    held_out_windows: int = 32
    write_penalty: float = 0.0
    change_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("bias", "input_gate"):
            require_instance(name, python_numbers(getattr(self, name)), bool)
        require_numbers(**{name: python_numbers(getattr(self, name)) for name in _NUMBERS})
        require_counts(
            batch_size=self.batch_size,
            evaluate_every=self.evaluate_every,
            held_out_windows=self.held_out_windows,
        )
        require_counts_or_none(patience=self.patience)
        require_counts(least=2, window=self.window)
        require_counts(least=0, first_position=self.first_position)
        if not (
            0 < self.learning_rate < math.inf
            and self.max_gradient_norm > 0
            and 0 <= self.weight_decay < math.inf
        ):
            raise ValueError(
                "learning_rate must be finite and above 0, max_gradient_norm above 0, weight_decay "
                f"finite and at least 0; got {self.learning_rate}, {self.max_gradient_norm} and "
                f"{self.weight_decay}"
            )
        require_learnable(self.embedding, self.scale)
        if not 0 <= self.warmup < 1:
            raise ValueError(
                f"warmup is a share of the steps, from 0 to below 1; got {self.warmup}"
            )
        if not 0 <= self.final_rate <= 1:
            raise ValueError(
                f"final_rate is a share of the learning rate, from 0 to 1; got {self.final_rate}"
            )
        if not (0 <= self.write_penalty < math.inf and 0 <= self.change_penalty < math.inf):
            raise ValueError(
                "write_penalty and change_penalty must be finite and at least 0, got "
                f"{self.write_penalty} and {self.change_penalty}"
            )

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of the step after `step` others, of `steps` in all."""
        warmup = round(self.warmup * steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / (steps - warmup)
        falling = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * falling)
