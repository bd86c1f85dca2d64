"""The tokens known so far in a batch of texts, and where each text begins and ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._summary import summary
from ..model.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class KnownText:
    """The tokens known so far, one text a row.

    Positions count from a text's first real token, whatever the padding.

    Attributes:
        tokens: `[batch, column]` ids.
        first: `[batch]`, the column of each text's first real token.
        length: `[batch]`, how many real tokens are known; they are contiguous.
        prompt_length: `[batch]`, how many of these tokens were given rather than generated; None if
            that is not known.
        seed: `[batch]`, keeps the random draws of one text apart from those of another.
        surprisal: `[batch, column]`, nats of the token after each column under the model without a
            patch, at least for the columns whose next token is known; None without a run of that
            model.
        residuals: `r[layer]` of that run by layer, `[batch, column, d_model]`, for as many columns.
    """

    tokens: Int[Tensor, "batch column"]
    first: Int[Tensor, " batch"]
    length: Int[Tensor, " batch"]
    prompt_length: Int[Tensor, " batch"] | None
    seed: Int[Tensor, " batch"]
    surprisal: Float[Tensor, "batch _"] | None = None
    residuals: Mapping[int, Float[Tensor, "batch _ d_model"]] = field(default_factory=dict)

    __repr__ = summary

    @classmethod
    def from_batch(
        cls,
        batch: TokenBatch,
        *,
        prompt_length: int | Int[Tensor, " batch"] | None = None,
        text_seeds: Int[Tensor, " batch"] | None = None,
    ) -> "KnownText":
        """The texts of a batch, all of whose real tokens are known.

        **Arguments:**

        - `prompt_length`: how many tokens were given, one number for all texts or one for each.
        - `text_seeds`: the seed of each text, 0 by default.

        Raises `ValueError` if the number of lengths or seeds is not that of the texts, or more
        tokens of a text were given than it has; `TypeError` for fractions.
        """
        n_texts, device = len(batch.tokens), batch.tokens.device
        of_each = {"text_seeds": 0 if text_seeds is None else text_seeds}
        if prompt_length is not None:
            of_each["prompt_length"] = prompt_length
        numbers: dict[str, Tensor] = {}
        for name, value in of_each.items():
            try:
                number = torch.as_tensor(value, device=device)
            except (TypeError, ValueError, RuntimeError) as error:
                raise TypeError(
                    f"{name} must be whole numbers below 2**63, got {value!r:.60}"
                ) from error
            if number.is_floating_point() or number.dtype == torch.bool:
                raise TypeError(f"{name} must be whole numbers, got {value!r:.60}")
            number = number.long()
            if number.shape not in ((), (n_texts,)):
                raise ValueError(
                    f"{name} has shape {tuple(number.shape)}; give one number for each of the "
                    f"{n_texts} texts"
                )
            numbers[name] = number.expand(n_texts)
        given, lengths = numbers.get("prompt_length"), batch.lengths
        # A prompt longer than its text would leave positions="generated" without any to patch.
        if given is not None and ((given < 0) | (given > lengths)).any():
            raise ValueError(
                f"prompt_length must be from 0 to the number of tokens {lengths.tolist()}, got "
                f"{given.tolist()}: give one number for each text"
            )
        first = batch.mask.int().argmax(-1)
        return cls(batch.tokens, first, lengths, given, numbers["text_seeds"])

    def at(self, position: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """Token ids at positions; at a position outside the text, an arbitrary token of it."""
        inside = torch.minimum(position.clamp(min=0), self.length[:, None] - 1)
        return self.tokens.gather(1, self.first[:, None] + inside)

    def surprisal_at(self, position: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos"]:
        """Nats of the token after positions, without a patch; an arbitrary number if it is unknown.

        Raises `ValueError` if the model was not run without the patch.
        """
        return self._told(self.surprisal, position)

    def residual_at(
        self, layer: int, position: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """`r[layer]` at positions without a patch; outside the text, an arbitrary one.

        Raises `ValueError` if the model was not run without the patch, or not kept at `layer`.
        """
        return self._told(self.residuals.get(layer), position)

    def _told(self, values: Tensor | None, position: Int[Tensor, "batch pos"]) -> Tensor:
        """Values of a run without a patch at positions."""
        if values is None:
            raise ValueError(
                "gate_on='output' and BackPatch need a run of the model without the patch, which "
                "is not made here: use teacher_forced_log_probs, generate, fwd_hooks, effect_map "
                "or slope_map"
            )
        column = (self.first[:, None] + position.clamp(min=0)).clamp(max=values.shape[1] - 1)
        row = torch.arange(len(values), device=values.device)[:, None]
        return values[row, column]

    def has_next(self, position: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
        """Whether positions are in the text and the token after them is known."""
        return (position >= 0) & (position + 1 < self.length[:, None])

    @property
    def predicts(self) -> Bool[Tensor, "batch column"]:
        """The columns that predict a token of their text."""
        return self.has_next(self.column_positions())

    def column_positions(self) -> Int[Tensor, "batch column"]:
        """The position of every column, -1 at padding."""
        column = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        position = column - self.first[:, None]
        return position.masked_fill((position < 0) | (position >= self.length[:, None]), -1)


def select_rows(text: KnownText, rows: slice | Int[Tensor, " row"]) -> KnownText:
    """Some rows of a batch of texts."""
    prompt_length = text.prompt_length
    return KnownText(
        text.tokens[rows],
        text.first[rows],
        text.length[rows],
        None if prompt_length is None else prompt_length[rows],
        text.seed[rows],
        None if text.surprisal is None else text.surprisal[rows],
        {layer: residual[rows] for layer, residual in text.residuals.items()},
    )
