"""Where a patch acts: rows of the residual stream, and the tokens known so far."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._counter_random import random_integers, random_normal
from .._summary import summary
from ..model.embedding import Embedding
from ..model.precision import at_least_float32
from .known_text import KnownText


@dataclass(frozen=True, eq=False)
class PatchSite:
    """What sources and modes see: rows of `r[layer]` and the text up to each row's next token.

    Rows may be any positions of a text (a whole text, a chunk, the last two), and a row's patch
    must depend on that row alone: cached generation, chunked prompts and whole texts must agree.
    Nothing checks this but `token_at`: an operation across rows, such as a roll or a mean, leaks
    later tokens without an error.

    Attributes:
        layer: the layer whose incoming residual is patched.
        resid: `[batch, pos, d_model]`, rows of `r[layer]`.
        position: `[batch, pos]`, position i of each row, counted from the text's first token.
        embedding: the function from token ids to vectors, `e` in the formulas.
        lens: the function from rows of `r[layer]` to the lens's logits.
        seed: the patch's seed.
        text: the tokens known so far. Read them with `token_at`, which refuses to look past a row's
            next token.
    """

    layer: int
    resid: Float[Tensor, "batch pos d_model"]
    position: Int[Tensor, "batch pos"]
    embedding: Embedding
    lens: Callable[[Tensor], Tensor]
    seed: int
    text: KnownText

    __repr__ = summary

    def copy(self) -> "PatchSite":
        """The same site with tensors of its own, into which a function of the user may write.

        The text is shared.
        """
        copied = copy(self)
        for name, value in vars(self).items():  # with what the lens has said already
            if isinstance(value, Tensor):
                object.__setattr__(copied, name, value.clone())
        return copied

    @property
    def known(self) -> Bool[Tensor, "batch pos"]:
        """Whether the row is a position whose next token is known: only these are patched."""
        return self.text.has_next(self.position)

    @property
    def current_tokens(self) -> Int[Tensor, "batch pos"]:
        """`x[i]`."""
        return self.text.at(self.position)

    @property
    def next_tokens(self) -> Int[Tensor, "batch pos"]:
        """`x[i+1]` where it is known, elsewhere an arbitrary token of the text."""
        return self.text.at(self.position + 1)

    def token_at(self, position: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """`x[position]`, with a position for each row; -1 before the text.

        A source that returns -1 names no token there. Do not look up its embedding: as an index, -1
        is the last token of the vocabulary.

        Raises `ValueError` if a position lies after the row's next token, since reading it would
        leak.
        """
        if ((position > self.position + 1) & self.known).any():
            raise ValueError("a source may read tokens up to i + 1, not beyond: that would leak")
        return self.text.at(position).where(position >= 0, -1)

    @cached_property
    def log_probs(self) -> Float[Tensor, "batch pos d_vocab"]:
        """Log-probabilities of the lens at this layer, nats."""
        logits = self.lens(self.resid)
        # Half-precision logits lose too much in the sum over the vocabulary.
        wide = at_least_float32(logits.dtype)
        return logits.log_softmax(-1, dtype=wide)

    @cached_property
    def surprisal(self) -> Float[Tensor, "batch pos"]:
        """`-log p(x[i+1])` under the lens at this layer, nats."""
        return -self.log_probs.gather(-1, self.next_tokens[..., None])[..., 0]

    @property
    def output_surprisal(self) -> Float[Tensor, "batch pos"]:
        """`-log p(x[i+1])` under the output of the model without a patch, nats.

        The run that tells is made for patches with `gate_on="output"`.

        Raises `ValueError` where no run of the model has told.
        """
        return self.text.surprisal_at(self.position)

    def unpatched_residual(self, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """`r[layer]` at these positions in the model without a patch.

        The run that tells is made for patches whose source is a `BackPatch` of this layer.

        Raises `ValueError` where no run of the model has told.
        """
        return self.text.residual_at(layer, self.position)

    @cached_property
    def expected_embedding(self) -> Float[Tensor, "batch pos d_model"]:
        """`E_{v ~ lens} e(v)`: the embedding of what the layer guesses, on average."""
        return self.embedding.mean(self.log_probs.exp())

    def draw_integers(self, high: int | Tensor) -> Int[Tensor, "batch pos"]:
        """Uniform integers in `[0, high)`, a function of seed, text seed and position."""
        return random_integers(high, self.seed, self.text.seed[:, None], self.position)

    def draw_directions(self) -> Float[Tensor, "batch pos d_model"]:
        """Gaussian vectors, a function of seed, text seed and position."""
        width = self.resid.shape[-1]
        normal = random_normal(width, self.seed, self.text.seed[:, None], self.position)
        return normal.to(self.resid)


def length_factor(
    rows: Float[Tensor, "batch pos d_model"], vectors: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch pos 1"]:
    """The factor that makes vectors as long as rows.

    Vectors of zeros (untrained embeddings) stay zero.
    """
    # In float16 a square would overflow.
    wide = at_least_float32(rows.dtype)
    of_rows, length = (each.to(wide).norm(dim=-1, keepdim=True) for each in (rows, vectors))
    return (of_rows / length.where(length > 0, 1)).to(rows.dtype)
