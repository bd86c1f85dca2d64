"""Measurements of a network during and after its training."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...fitting.input_probe import fit_input_probe
from ...fitting.input_recovery import input_recovery
from ...model.points import select_points
from ..design.rows_of_sums import masked_sums, sum_rows
from ..design.small_networks.corpus import Corpus
from ..design.small_networks.training import Record
from ..design.text_scopes import ALL, scopes_of
from .network import LayeredNetwork

LOSS, KL, RIGHT, RECOVERED = "loss", "kl", "right", "recovered"
"""Of a point: the loss, KL(final ‖ point), whether the top guess is right, whether the input token
is the one that a linear map finds."""

WEIGHTS = "squared weights"

# Places of the probe's own map, the only one at each point, and of its accuracy.
_OWN, _FIRST = 0, 0

_BATCH = 32


@torch.no_grad()
def measure(network: LayeredNetwork, corpus: Corpus, n_windows: int) -> list[Record]:
    """Sums over held-out windows of the readings at each point, and the size of the weights.

    Each record has measure, scope, point, row, cluster, total and count; losses and divergences are
    in nats.
    """
    points = select_points(network.shape.n_layers)
    windows = corpus.windows[:n_windows]
    clusters = corpus.clusters[:n_windows].tolist()
    parts = [readings(network, some) for some in windows.split(_BATCH)]
    scopes = scopes_of(windows)
    found = []
    for measure in (LOSS, KL, RIGHT):
        values = torch.cat([part[measure] for part in parts], dim=1)
        for scope, counted in scopes.items():
            for point, of_point in zip(points, values, strict=True):
                sums = masked_sums(of_point, counted)
                found += sum_rows(_named(measure, scope, point), clusters, *sums)
    matrices = [p for p in network.model.transformer.h.parameters() if p.ndim == 2]
    size = float(sum(p.double().square().sum() for p in matrices))
    count = sum(p.numel() for p in matrices)
    return found + sum_rows(_named(WEIGHTS, "", ""), [0], [size], [count])


def readings(
    network: LayeredNetwork, tokens: Int[Tensor, "text pos"]
) -> Mapping[str, Float[Tensor, "point text next"]]:
    """`LOSS`, `KL` and `RIGHT` of every point at every position that predicts."""
    logits = torch.stack([network.read(stream[:, :-1]) for stream in network.streams(tokens)])
    log_probs = logits.log_softmax(-1)
    following = tokens[:, 1:]
    index = following[None, ..., None].expand(len(log_probs), -1, -1, -1)
    final = log_probs[-1]
    return {
        LOSS: -log_probs.gather(-1, index)[..., 0],
        KL: (final.exp() * (final - log_probs)).sum(-1),
        RIGHT: (log_probs.argmax(-1) == following).to(log_probs),
    }


def recovered(
    bridge: TransformerBridge, corpus: Corpus, fitted: Int[Tensor, "window pos"]
) -> list[Record]:
    """For each held-out window, how many input tokens a linear map finds at every point.

    The map of each point is fitted to the windows `fitted`.
    """
    probe = fit_input_probe(bridge, fitted.tolist(), window=fitted.shape[1], progress=False)
    texts = corpus.windows.tolist()
    recovery = input_recovery(bridge, probe, texts, maps=("own",), progress=False)
    found = []
    clusters, counts = corpus.clusters.tolist(), recovery.counts[-1].tolist()
    for point, totals in zip(recovery.points, recovery.totals[_FIRST, _OWN, :, -1], strict=True):
        found += sum_rows(_named(RECOVERED, ALL, point), clusters, totals.tolist(), counts)
    return found


def _named(measure: str, scope: str, point: str) -> dict[str, str]:
    return {"measure": measure, "scope": scope, "point": point}
