"""Measurements of a network during and after its training."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..._counter_random import random_integers
from ...measures.behaviour import surprise_distance
from ..design.rows_of_sums import masked_sums, sum_rows
from ..design.small_networks.corpus import Corpus
from ..design.small_networks.training import Record
from ..design.text_scopes import AS_TRAINED, SECOND, TAKEN_AWAY, scopes_of, second_copy
from .arms import NONE, UNWRITTEN, ScratchTraining, written_tokens
from .network import Network

FALSIFIED = "falsified"
"""The condition in which a shuffled token is written."""

_BATCH = 32


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


@torch.no_grad()
def measure(
    network: Network, training: ScratchTraining, material: Material, n_windows: int, *, final: bool
) -> list[Record]:
    """Records of a network: sums of nats by window and scope, and scores of its heads.

    Each record has condition, scope, row, cluster, total and count. For a loss, the row is a
    window. For a head, the row is the block and the cluster is the head. Conditions other than
    `AS_TRAINED` are measured if this is the `final` one.
    """
    arms = {AS_TRAINED: training.arm}
    if final and training.arm not in UNWRITTEN:
        arms |= {TAKEN_AWAY: NONE, FALSIFIED: "shuffled"}
    clusters = material.clusters[:n_windows].tolist()
    found = []
    for condition, arm in arms.items():
        nats = _nats(network, arm, training.seed, material.windows[:n_windows])
        for scope, counted in material.scopes.items():
            sums = masked_sums(nats, counted[:n_windows])
            found += sum_rows({"condition": condition, "scope": scope}, clusters, *sums)
        repeated = _nats(network, arm, training.seed, material.copies)
        sums = masked_sums(repeated, second_copy(material.copies))
        own = range(len(material.copies))
        found += sum_rows({"condition": condition, "scope": SECOND}, own, *sums)
    return found + _heads(network, training, material)


def _nats(
    network: Network, arm: str, seed: int, tokens: Int[Tensor, "text pos"]
) -> Float[Tensor, "text next"]:
    found = []
    for number in torch.arange(len(tokens)).split(_BATCH):
        some = tokens[number]
        logits = network(some, written_tokens(arm, some, seed, number))[:, :-1]
        found.append(nn.functional.cross_entropy(logits.mT, some[:, 1:], reduction="none"))
    return torch.cat(found)


PREFIX_MATCHING, SAME_TOKEN = "prefix matching", "same token"


def _heads(network: Network, training: ScratchTraining, material: Material) -> list[Record]:
    """Mean attention from the second copy to the place after the same token, and to the token.

    The first is the score that identifies induction heads (Olsson et al. 2022). If the true token
    is written, the following token is already known at the earlier place of the token itself.
    """
    patterns: list[Tensor] = []
    tokens = material.copies
    source = written_tokens(training.arm, tokens, training.seed, torch.arange(len(tokens)))
    network(tokens, source, patterns=patterns)
    query = torch.arange(material.half, 2 * material.half)
    return [
        {
            "condition": AS_TRAINED,
            "scope": scope,
            "row": block,
            "cluster": head,
            "total": score,
            "count": 1,
        }
        for block, pattern in enumerate(patterns)
        for scope, key in (
            (PREFIX_MATCHING, query - material.half + 1),
            (SAME_TOKEN, query - material.half),
        )
        for head, score in enumerate(pattern[:, :, query, key].mean((0, 2)).tolist())
    ]
