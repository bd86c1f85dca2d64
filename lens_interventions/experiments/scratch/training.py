"""A training of the scratch experiment: the network, and the loss with the write of its arm."""

from dataclasses import asdict

import torch
from jaxtyping import Int
from torch import Tensor

from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Batches, Optimization, TrainingRun, mean_nats
from .arms import ScratchTraining, written_tokens
from .network import Network


def scratch_run(
    training: ScratchTraining,
    shape: Shape,
    options: Optimization,
    batches: Batches,
    *,
    dtype: torch.dtype = torch.float32,
) -> TrainingRun[Network]:
    """The training before its first step."""

    def loss(
        network: Network, tokens: Int[Tensor, "text pos"], seeds: Int[Tensor, " text"]
    ) -> Tensor:
        source = written_tokens(training.arm, tokens, training.seed, seeds)
        return mean_nats(network(tokens, source), tokens)

    network = Network(shape, training.entry, training.seed).to(dtype)
    return TrainingRun(network, loss, options, batches, {**asdict(training), **asdict(shape)})
