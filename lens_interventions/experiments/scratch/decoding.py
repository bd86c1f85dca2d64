"""Free decoding with a trained network: does it end in loops, and does it go on with a copy?"""

import torch
from jaxtyping import Int
from torch import Tensor

from ...measures.behaviour import ending_loops, rep_n
from ..design.rows_of_sums import sum_rows
from ..design.small_networks.training import Record
from ..design.text_scopes import AS_TRAINED
from .arms import ScratchTraining, written_tokens
from .material import Material, in_batches
from .network import Network

LOOPED, REPEATED, COPIED = "greedy texts that end in a loop", "rep-4", "right tokens of a copy"
"""Shares: of greedy texts, those that end in a loop; of the 4-grams of one, those that repeat an
earlier one; of the tokens of a continued copy, those that are right."""

DECODED = (LOOPED, REPEATED, COPIED)


@torch.no_grad()
def decoded(
    network: Network, training: ScratchTraining, prompts: Int[Tensor, "text pos"], n_new: int
) -> Int[Tensor, "text new"]:
    """Greedy continuations, in which each token is written once it is known, as in `generate`."""
    found = []
    for number in in_batches(prompts):
        tokens = prompts[number]
        for _ in range(n_new):
            written = written_tokens(training.arm, tokens, training.seed, number)
            likeliest = network(tokens, written)[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, likeliest], dim=1)
        found.append(tokens[:, prompts.shape[1] :])
    return torch.cat(found)


def decoded_rows(
    network: Network, training: ScratchTraining, material: Material, n_texts: int
) -> list[Record]:
    """A row for each text and share of `DECODED`: of `n_texts` windows and copies, or all.

    Windows are continued from their first half, and repeated random tokens from the first quarter
    of the second copy.
    """
    windows, copies = material.windows[:n_texts], material.copies[:n_texts]
    known = windows.shape[1] // 2
    texts = decoded(network, training, windows[:, :known], windows.shape[1] - known)
    loops = [float(loop is not None) for loop in ending_loops(texts)]
    given = material.half + material.half // 4
    n_new = copies.shape[1] - given
    right = (decoded(network, training, copies[:, :given], n_new) == copies[:, given:]).sum(1)
    clusters, once = material.clusters[:n_texts].tolist(), [1] * len(windows)
    shares = {
        LOOPED: (clusters, loops, once),
        REPEATED: (clusters, rep_n(texts, 4).tolist(), once),
        COPIED: (list(range(len(copies))), right.double().tolist(), [n_new] * len(copies)),
    }
    return [
        row
        for scope, sums in shares.items()
        for row in sum_rows({"condition": AS_TRAINED, "scope": scope}, *sums)
    ]
