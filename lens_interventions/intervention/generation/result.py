"""Results of generation: new tokens, their log-probabilities, and where the texts ended."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..._summary import summary
from ...lens.selection import of_prompts
from ...lens.trajectory import Trajectory
from ...model.tokens import TokenBatch
from ..patch import NextTokenPatch
from ..patch_labels import patch_labels

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class GenerationStep:
    """One new token for every row that has not ended; the argument of a callback.

    Attributes:
        step: 0 for the first new token.
        rows: `[row]`, the rows of the result that have not ended.
        tokens: `[row]`, their new tokens.
        log_probs: `[row]`, the log-probabilities of those tokens under the model's own
            distribution, in nats.
    """

    step: int
    rows: Int[Tensor, " row"]
    tokens: Int[Tensor, " row"]
    log_probs: Float[Tensor, " row"]

    __repr__ = summary

    def copy(self) -> "GenerationStep":
        """The same step with tensors of its own, into which a function of the user may write."""
        return GenerationStep(
            self.step, self.rows.clone(), self.tokens.clone(), self.log_probs.clone()
        )


@dataclass(frozen=True, eq=False)
class Generation:
    """Sampled continuations, one row for each patch and prompt, as tensors on the CPU.

    With one patch, or none, row i continues prompt i. With several, the rows of the first patch
    come first, and `of_patch` returns those of one patch.

    Attributes:
        tokens: `[batch, new]`, only the new tokens, with the end-of-text token if there is one; -1
            after a row's end.
        log_probs: `[batch, new]`, the log-probability of each new token in nats, under the model's
            own distribution with the patch, before any logits processor; NaN after a row's end.
        lengths: `[batch]`, how many new tokens each row has.
        finished: `[batch]`, whether a stopping criterion or an end-of-text token ended the row, and
            not `max_new_tokens`.
        texts: each row's new tokens as text, without special tokens; None without a tokenizer.
        vocab: text of every new id, or its number without a tokenizer.
        prompts: `[batch, prompt]`, each row's prompt, -1 to the right of it.
        prompt_lengths: `[batch]`, how many of a row's first tokens count as given.
        patches: the patches that were compared; None is the model without a patch.
        patch_index: `[batch]`, the number of each row's patch.
        prompt_index: `[batch]`, the number of the prompt that each row continues.
        seeds: `[batch]`, the seed with which each row was sampled.
        text_seeds: `[batch]`, the seed of each row's random sources beside the patch's own.
        pad: the id that pads `whole.tokens`: the tokenizer's pad token, or 0 without one.
        trajectory: the lens's reading of each predicting position, or None if it was not asked for
            or a row has none of its positions: column j is the position that predicted new token
            j, and `next_tokens` holds that token.
    """

    tokens: Int[Tensor, "batch new"]
    log_probs: Float[Tensor, "batch new"]
    lengths: Int[Tensor, " batch"]
    finished: Bool[Tensor, " batch"]
    texts: tuple[str, ...] | None
    vocab: Mapping[int, str]
    prompts: Int[Tensor, "batch prompt"]
    prompt_lengths: Int[Tensor, " batch"]
    patches: tuple[NextTokenPatch | None, ...]
    patch_index: Int[Tensor, " batch"]
    prompt_index: Int[Tensor, " batch"]
    seeds: Int[Tensor, " batch"]
    text_seeds: Int[Tensor, " batch"]
    pad: int = 0
    trajectory: Trajectory | None = None

    def __repr__(self) -> str:
        rows, new = self.tokens.shape
        return (
            f"Generation({rows} rows, up to {new} new tokens, {int(self.finished.sum())} finished, "
            f"patches={self.patches})"
        )

    @property
    def whole(self) -> TokenBatch:
        """Prompts and continuations as one batch, padded on the right, to be scored or continued.

        With `prompt_length=prompt_lengths`, `seed=seeds` and `text_seeds=text_seeds`, `generate`
        continues `whole.tokens`, with the mask `whole.mask` and the same patch, as if it had not
        stopped. Of several patches, take one with `of_patch` first, and leave out `finished` rows,
        which would go on after their end.
        """
        rows = [
            torch.cat([prompt[prompt >= 0], new[new >= 0]])
            for prompt, new in zip(self.prompts, self.tokens, strict=True)
        ]
        return TokenBatch.of_rows(rows, pad=self.pad)

    def of_patch(self, index: int) -> "Generation":
        """The rows of one patch, in the order of the prompts.

        Raises `IndexError` if there are not so many patches.
        """
        if not -len(self.patches) <= index < len(self.patches):
            last = len(self.patches) - 1
            raise IndexError(f"the patches are numbered from 0 to {last}; got {index}")
        chosen = range(len(self.patches))[index]
        rows = (self.patch_index == chosen).nonzero()[:, 0]
        trajectory = self.trajectory
        cut: dict[str, Any] = {
            name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(
            self,
            **cut | {"patch_index": torch.zeros_like(rows)},
            texts=None if self.texts is None else tuple(self.texts[i] for i in rows.tolist()),
            patches=(self.patches[chosen],),
            trajectory=None if trajectory is None else of_prompts(trajectory, rows),
        )

    def to_dataframe(self) -> "pd.DataFrame":
        """One row for each new token.

        Columns: row, of the tensors; patch (its number), label (what tells it from the others);
        prompt, its number, and seed, with which the row was sampled; step, token_id, token, its
        text, and log_prob.
        """
        import pandas as pd

        row, step = (self.tokens >= 0).nonzero(as_tuple=True)
        ids, labels = self.tokens[row, step], patch_labels(self.patches)
        return pd.DataFrame(
            {
                "row": row.numpy(),
                "patch": self.patch_index[row].numpy(),
                "label": [labels[i] for i in self.patch_index[row].tolist()],
                "prompt": self.prompt_index[row].numpy(),
                "seed": self.seeds[row].numpy(),
                "step": step.numpy(),
                "token_id": ids.numpy(),
                "token": [self.vocab[token] for token in ids.tolist()],
                "log_prob": self.log_probs[row, step].numpy(),
            }
        )
