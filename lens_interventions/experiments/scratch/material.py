"""Texts that networks are measured on: held-out windows, and random tokens that are repeated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..._counter_random import random_integers
from ...measures.behaviour import surprise_distance
from ..design.small_networks.corpus import Corpus
from ..design.text_scopes import scopes_of

_BATCH = 32  # texts that a network reads at a time when it is measured


@dataclass(frozen=True, eq=False)
class Material:
    """Texts that networks are measured on.

    Attributes:
        windows: `[window, pos]`, held-out text.
        clusters: `[window]`, the number of each window's document.
        scopes: masks of the predictions of the windows that count, by name.
        copies: `[text, pos]`, random tokens that are repeated once.
    """

    windows: Int[Tensor, "window pos"]
    clusters: Int[Tensor, " window"]
    scopes: Mapping[str, Bool[Tensor, "window next"]]
    copies: Int[Tensor, "text pos"]

    @property
    def half(self) -> int:
        """How many tokens are repeated."""
        return self.copies.shape[1] // 2


def in_batches(texts: Int[Tensor, "text pos"]) -> Sequence[Int[Tensor, " some"]]:
    """The numbers of the texts that a network reads at a time."""
    return torch.arange(len(texts)).split(_BATCH)


def material_of(corpus: Corpus, *, surprising: float, n_copies: int, seed: int) -> Material:
    """The windows of a corpus with their scopes, and repeated random tokens."""
    windows = corpus.windows
    n_next = windows.shape[1] - 1
    place = torch.arange(n_next).expand(len(windows), -1)
    counter = torch.arange(n_copies * (windows.shape[1] // 2)).view(n_copies, -1)
    part = 1 + random_integers(len(corpus.tokenizer) - 1, seed, counter)
    return Material(
        windows=windows,
        clusters=corpus.clusters,
        scopes={
            **scopes_of(windows),
            "repeats of surprises": surprise_distance(windows, corpus.surprisals, surprising) > 0,
            "early": place < n_next // 4,
            "late": place >= n_next - n_next // 4,
        },
        copies=torch.cat([part, part], dim=1),
    )
