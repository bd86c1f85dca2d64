"""Results of generation: new tokens, how likely they were, where the texts ended."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...lens.selection import of_prompts
from ...lens.trajectory import Trajectory
from ...model.tokens import TokenBatch
from ..patch import NextTokenPatch

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class GenerationStep:
    """One new token for every row that goes on; what a callback gets.

    Attributes:
        step: 0 for the first new token.
        rows: which rows of the result go on.
        tokens: their new tokens.
        log_probs: of those, nats, under the model's own distribution.
    """

    step: int
    rows: Int[Tensor, " row"]
    tokens: Int[Tensor, " row"]
    log_probs: Float[Tensor, " row"]


@dataclass(frozen=True)
class Generation:
    """Sampled continuations, one row for each patch and prompt, as tensors on the CPU.

    With one patch, or none, row i continues prompt i. With several, the rows of the first patch
    come first: `of_patch` takes them apart.

    Attributes:
        tokens: `[batch, new]`, the new tokens alone, an end-of-text token included; -1 after a
            row's end.
        log_probs: `[batch, new]`, of each new token, nats, under the model's own distribution with
            the patch, before any logits processor; NaN after a row's end.
        lengths: `[batch]`, how many new tokens each row has.
        finished: `[batch]`, whether a stopping criterion ended the row, an end-of-text token among
            them, rather than `max_new_tokens`.
        texts: each row's new tokens as text, special tokens left out; None without a tokenizer.
        prompts: `[batch, prompt]`, each row's prompt, -1 to the right of it.
        prompt_lengths: `[batch]`, how many of a row's first tokens count as given.
        patches: what was compared.
        patch_index: `[batch]`, which of them each row had.
        prompt_index: `[batch]`, which prompt each row continues.
        seeds: `[batch]`, of the sampling.
        trajectory: if asked for, what the lens reads at each predicting position: column j is the
            position that predicted new token j, and `next_tokens` holds that token.
    """

    tokens: Int[Tensor, "batch new"]
    log_probs: Float[Tensor, "batch new"]
    lengths: Int[Tensor, " batch"]
    finished: Bool[Tensor, " batch"]
    texts: tuple[str, ...] | None
    prompts: Int[Tensor, "batch prompt"]
    prompt_lengths: Int[Tensor, " batch"]
    patches: tuple[NextTokenPatch | None, ...]
    patch_index: Int[Tensor, " batch"]
    prompt_index: Int[Tensor, " batch"]
    seeds: Int[Tensor, " batch"]
    trajectory: Trajectory | None = None

    def __repr__(self) -> str:
        rows, new = self.tokens.shape
        return (
            f"Generation({rows} rows, up to {new} new tokens, {int(self.finished.sum())} finished, "
            f"patches={self.patches})"
        )

    @property
    def whole(self) -> TokenBatch:
        """Prompts and continuations as one batch, padded on the right, to score or to go on with.

        With `prompt_length=prompt_lengths` and the same seeds, `generate` goes on from
        `whole.tokens` and `whole.mask` as if it had not stopped.
        """
        rows = [
            torch.cat([prompt[prompt >= 0], new[new >= 0]])
            for prompt, new in zip(self.prompts, self.tokens, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return TokenBatch(tokens, torch.arange(tokens.shape[1]) < lengths[:, None])

    def of_patch(self, index: int) -> "Generation":
        """The rows of one patch, in the order of the prompts."""
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
        """One row for each new token: patch, prompt, step, token id, log-probability."""
        import pandas as pd

        row, step = (self.tokens >= 0).nonzero(as_tuple=True)
        return pd.DataFrame(
            {
                "patch": [str(self.patches[i]) for i in self.patch_index[row].tolist()],
                "prompt": self.prompt_index[row].numpy(),
                "step": step.numpy(),
                "token_id": self.tokens[row, step].numpy(),
                "log_prob": self.log_probs[row, step].numpy(),
            }
        )
