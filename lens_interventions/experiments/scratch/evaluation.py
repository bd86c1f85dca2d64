"""Measurements of a network during and after its training."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..design.rows_of_sums import masked_sums, sum_rows
from ..design.small_networks.training import Record
from ..design.text_scopes import AS_TRAINED, SECOND, TAKEN_AWAY, second_copy
from .arms import NONE, UNWRITTEN, ScratchTraining, written_tokens
from .decoding import decoded_rows
from .material import Material, in_batches
from .network import Network

FALSIFIED = "falsified"
"""The condition in which a shuffled token is written."""


@torch.no_grad()
def measure(
    network: Network,
    training: ScratchTraining,
    material: Material,
    n_windows: int,
    *,
    final: bool,
    n_decoded: int = 0,
) -> list[Record]:
    """Records of a network: sums of nats by window and scope, scores of its heads, shares of texts.

    Each record has condition, scope, row, cluster, total and count. For a loss, the row is a
    window. For a head, the row is the block and the cluster is the head. Conditions other than
    `AS_TRAINED` are measured, and `n_decoded` texts decoded, if this is the `final` one.
    """
    arms = {AS_TRAINED: training.arm}
    if final and training.arm not in UNWRITTEN:
        arms |= {TAKEN_AWAY: NONE, FALSIFIED: "shuffled"}
    found = []
    for condition, arm in arms.items():
        as_arm = replace(training, arm=arm)
        found += loss_rows(network, as_arm, material, n_windows, {"condition": condition})
    if final and n_decoded:
        found += decoded_rows(network, training, material, n_decoded)
    return found + _heads(network, training, material)


def loss_rows(
    network: Network,
    training: ScratchTraining,
    material: Material,
    n_windows: int,
    named: Mapping[str, Any],
    gates: Float[Tensor, "block 2 head"] | None = None,
) -> list[Record]:
    """Sums of nats of the windows, by scope, and of random second copies, as `sum_rows`.

    `named` are further columns of the rows. `gates` are those of `Network`.
    """

    def nats_in(texts: Int[Tensor, "text pos"]) -> Float[Tensor, "text next"]:
        parts = (nats_of(network, training, texts, number, gates) for number in in_batches(texts))
        return torch.cat(list(parts))

    clusters = material.clusters[:n_windows].tolist()
    nats = nats_in(material.windows[:n_windows])
    found = []
    for scope, counted in material.scopes.items():
        sums = masked_sums(nats, counted[:n_windows])
        found += sum_rows({**named, "scope": scope}, clusters, *sums)
    sums = masked_sums(nats_in(material.copies), second_copy(material.copies))
    return found + sum_rows({**named, "scope": SECOND}, range(len(material.copies)), *sums)


def nats_of(
    network: Network,
    training: ScratchTraining,
    texts: Int[Tensor, "text pos"],
    number: Int[Tensor, " some"],
    gates: Float[Tensor, "block 2 head"] | None,
) -> Float[Tensor, "some next"]:
    """The nats of the tokens of some of the texts, whose numbers are the seeds of their draws."""
    some = texts[number]
    source = written_tokens(training.arm, some, training.seed, number)
    logits = network(some, source, gates=gates)[:, :-1]
    return nn.functional.cross_entropy(logits.mT, some[:, 1:], reduction="none")


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
