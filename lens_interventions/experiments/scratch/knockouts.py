"""Knockouts: what a network loses if heads get their keys or values without the write.

Attention is the only way from a write to a prediction, since the position that predicts is never
written to. In a knockout, the keys or values of heads are those of the stream without a write at
their positions. A head reads the write if its own knockout costs something.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..design.rows_of_sums import sum_rows
from ..design.small_networks.training import Record
from ..design.text_scopes import AS_TRAINED, SECOND, second_copy
from .arms import ScratchTraining
from .evaluation import loss_rows, nats_of
from .material import Material, in_batches
from .network import Network

PATHS: Mapping[str, tuple[int, ...]] = {"keys": (0,), "values": (1,), "keys and values": (0, 1)}
"""What is made without the write: places on the axis of `Network`'s gates."""

EVERY = -1
"""The block and the head of a knockout of all heads."""

LOSS, FIRST_ORDER = "loss", "first order"
"""What a row has: a loss, or the rise of the loss that its derivative predicts for a knockout."""


@torch.no_grad()
def knockout_rows(network: Network, training: ScratchTraining, material: Material) -> list[Record]:
    """Sums of nats, as trained and under each knockout.

    The columns are measured, path, block, head, and those of `loss_rows`. As trained, and where all
    heads are knocked out at once, block and head are `EVERY`. A row of `FIRST_ORDER` has the sum
    over all texts of its scope.
    """
    found = []
    for named, gates in _knockouts(network):
        columns = {"measured": LOSS, **named}
        found += loss_rows(network, training, material, len(material.windows), columns, gates)
    masks = {scope: (material.windows, counted) for scope, counted in material.scopes.items()}
    masks |= {SECOND: (material.copies, second_copy(material.copies))}
    for scope, (texts, counted) in masks.items():
        rises = first_order(network, training, texts, counted)
        for named, closed in _single_knockouts(network):
            columns = {"measured": FIRST_ORDER, **named, "scope": scope}
            found += sum_rows(columns, [0], [float(rises[closed].sum())], [int(counted.sum())])
    return found


def first_order(
    network: Network,
    training: ScratchTraining,
    texts: Int[Tensor, "text pos"],
    counted: Bool[Tensor, "text next"],
) -> Float[Tensor, "block 2 head"]:
    """How much the sum of the nats that are `counted` would rise if it were linear in the gates."""
    gates = _open_gates(network).requires_grad_()
    slopes = torch.zeros_like(gates)
    with torch.enable_grad():
        for number in in_batches(texts):
            nats = nats_of(network, training, texts, number, gates)
            (slope,) = torch.autograd.grad(nats[counted[number]].sum(), gates)
            slopes += slope
    return -slopes.detach()


def _open_gates(network: Network) -> Float[Tensor, "block 2 head"]:
    shape = network.shape
    return torch.ones(shape.n_layers, 2, shape.n_heads, dtype=network.up.dtype)


def _single_knockouts(
    network: Network,
) -> Iterator[tuple[dict[str, Any], Bool[Tensor, "block 2 head"]]]:
    """Each head that can read the write, by path, and the gates that its knockout closes."""
    for path, places in PATHS.items():
        for block in range(network.entry, network.shape.n_layers):
            for head in range(network.shape.n_heads):
                closed = torch.zeros_like(_open_gates(network), dtype=torch.bool)
                closed[block, list(places), head] = True
                yield {"path": path, "block": block, "head": head}, closed


def _knockouts(
    network: Network,
) -> Iterator[tuple[dict[str, Any], Float[Tensor, "block 2 head"]]]:
    """No knockout, those of all heads at once, and those of single heads, with their gates."""
    every = {"block": EVERY, "head": EVERY}
    yield {"path": AS_TRAINED, **every}, _open_gates(network)
    for path, places in PATHS.items():
        gates = _open_gates(network)
        gates[:, list(places)] = 0.0
        yield {"path": path, **every}, gates
    for named, closed in _single_knockouts(network):
        yield named, _open_gates(network).masked_fill(closed, 0.0)
