"""A corpus to train on: its pieces, the held-out ones, and the order in which training visits them.

The blocks below the lowest patched layer never change. They run once for each piece, without
gradients, and batches are made from their outputs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..._counter_random import random_bits
from ...drawing.labels import counted
from ...model.fingerprint import model_hash
from ...model.precision import at_least_float32
from ...model.readout import Readout
from ...model.residuals import text_residuals
from ...model.text_pieces import pieces_of_each
from ...model.tokens import TextOrTokens, TokenBatch, about
from ..known_text import KnownText
from .residual_store import ResidualStore

# One text or piece in this many is held out, unless held-out texts are given.
_HELD_OUT = 10


@dataclass(frozen=True)
class CorpusBatch:
    """A few pieces of text, padded on the right.

    Attributes:
        resid: `[batch, pos, d_model]`, `r[layer]`; arbitrary at padding.
        text: their tokens, lengths and seeds.
        clean_nats: `[batch]`, nats of the next tokens of each without a patch.
    """

    resid: Float[Tensor, "batch pos d_model"]
    text: KnownText
    clean_nats: Float[Tensor, " batch"]


class TrainingCorpus:
    """A corpus in pieces, with the residual that enters one layer in each of them.

    Attributes:
        pieces: token ids of each.
    """

    def __init__(
        self,
        bridge: TransformerBridge,
        pieces: Sequence[Int[Tensor, " _"]],
        *,
        layer: int,
        store: ResidualStore,
    ) -> None:
        """Set up the corpus; nothing runs until a batch is asked for."""
        self.pieces = tuple(pieces)
        self._bridge, self._layer, self._store = bridge, layer, store
        self._model = model_hash(bridge)

    def batch(
        self, indices: Sequence[int], seeds: Int[Tensor, " batch"], readout: Readout
    ) -> CorpusBatch:
        """Some pieces, each with a seed for the random sources, and their loss by a readout."""
        tokens = [self.pieces[index] for index in indices]
        read = [
            self._store.read(self._bridge, self._model, self._layer, ids, readout) for ids in tokens
        ]
        return CorpusBatch(
            torch.nn.utils.rnn.pad_sequence([resid for resid, _ in read], batch_first=True),
            KnownText.from_batch(TokenBatch.of_rows(tokens), text_seeds=seeds),
            torch.stack([nats for _, nats in read]),
        )

    def groups(self, indices: Sequence[int], rows: int) -> list[list[int]]:
        """The same pieces in groups of at most `rows` tokens, padding included, one at least."""
        groups: list[list[int]] = []
        for index in indices:
            longest = max(len(self.pieces[i]) for i in [index, *(groups[-1] if groups else [])])
            if groups and (len(groups[-1]) + 1) * longest <= rows:
                groups[-1].append(index)
            else:
                groups.append([index])
        return groups

    def typical_sizes(self, layers: Sequence[int], first_position: int) -> Float[Tensor, " layer"]:
        """Median root mean square of `r[layer]` over positions from `first_position` up."""
        labels = [f"{layer}_pre" for layer in layers]
        sizes: list[list[Tensor]] = [[] for _ in layers]
        with torch.no_grad():
            for piece in self.pieces[:4]:
                first = min(first_position, len(piece) - 1)
                streams = text_residuals(self._bridge, piece, labels, first=first)
                for rows, late in zip(sizes, streams, strict=True):
                    wide = late.to(at_least_float32(late.dtype))
                    rows.append(wide.square().mean(-1).sqrt())
        return torch.stack([torch.cat(rows).median() for rows in sizes])

    def digest(self) -> str:
        """A hash of all the tokens."""
        hashed = hashlib.sha256()
        for piece in self.pieces:
            hashed.update(piece.cpu().numpy().tobytes() + b"|")
        return hashed.hexdigest()


@dataclass(frozen=True)
class Corpora:
    """Pieces to train on and others to choose the best step by."""

    training: TrainingCorpus
    held_out: TrainingCorpus


@dataclass(frozen=True)
class Visit:
    """Some pieces of a corpus, with a seed for each."""

    corpus: TrainingCorpus
    indices: Sequence[int]
    seeds: Int[Tensor, " piece"]

    @classmethod
    def of_all(cls, corpus: TrainingCorpus) -> "Visit":
        """All pieces, with the same draws at every visit."""
        indices = range(len(corpus.pieces))
        return cls(corpus, indices, torch.tensor(indices))

    @property
    def n_predicted(self) -> int:
        """The number of predicted tokens."""
        return sum(len(self.corpus.pieces[i]) - 1 for i in self.indices)


def split_corpus(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    held_out: Iterable[TextOrTokens] | None,
    *,
    length: int,
    n_held_out: int,
    prepend_bos: bool | None,
) -> tuple[list[Int[Tensor, " _"]], list[Int[Tensor, " _"]]]:
    """Pieces of at most `length` tokens to train on, and at most `n_held_out` others.

    The others are spread evenly over `held_out`. Without it they come from every tenth text, or are
    every tenth piece if there are fewer texts.

    Raises `TypeError` if one text is given where several are expected, `ValueError` if nothing is
    left to train on or to hold out.
    """

    def cut(some: Iterable[TextOrTokens]) -> list[list[Tensor]]:
        pieces = pieces_of_each(bridge, some, length=length, prepend_bos=prepend_bos)
        texts = [[piece for piece in text if len(piece) > 1] for text in pieces]
        return [text for text in texts if text]

    units = cut(texts)
    if held_out is not None:
        with about("held_out"):
            others = cut(held_out)
        if not others:
            raise ValueError("no text of held_out has two tokens: give longer ones")
    else:
        if len(units) < _HELD_OUT:
            units = [[piece] for unit in units for piece in unit]
        others = units[_HELD_OUT - 1 :: _HELD_OUT]
        units = [unit for i, unit in enumerate(units, 1) if i % _HELD_OUT]
    training, kept = [p for unit in units for p in unit], [p for unit in others for p in unit]
    if not training or not kept:
        raise ValueError(
            f"{counted(len(training), 'piece')} of {length} tokens to train on and {len(kept)} to "
            f"hold out, which takes one in {_HELD_OUT}: give more text, or a smaller window"
        )
    n_kept = min(n_held_out, len(kept))
    return training, [kept[i * len(kept) // n_kept] for i in range(n_kept)]


def visited(n_pieces: int, batch_size: int, step: int, seed: int) -> tuple[list[int], Tensor]:
    """Which pieces a step trains on, and a seed for each that no other step uses.

    Each pass visits every piece once, in an order of its own. The order depends on these numbers
    alone, so all sources see the same order.
    """
    visits = torch.arange(step * batch_size, (step + 1) * batch_size)
    indices: list[int] = []
    for epoch in (visits // n_pieces).unique():
        order = random_bits(seed, torch.arange(n_pieces), epoch).argsort(stable=True)
        indices += order[visits[visits // n_pieces == epoch] % n_pieces].tolist()
    return indices, random_bits(seed + 1, visits)
