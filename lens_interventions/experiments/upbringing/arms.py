"""The arms, which differ in how a network is trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..design.small_networks.training import Loss, mean_nats
from .network import LayeredNetwork

PLAIN, NO_DECAY, STRONG_DECAY = "plain", "no decay", "strong decay"
UNTIED, MYOPIC, STOPPED = "untied", "myopic", "myopic, stopped"

ARMS = (PLAIN, NO_DECAY, STRONG_DECAY, UNTIED, MYOPIC, STOPPED)


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        arm: one of `ARMS`.
        seed: the seed of the first weights and of the order of the text.
    """

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """A name that is unique to the training and fit for a file."""
        return f"{self.arm.replace(', ', '-').replace(' ', '-')}-seed{self.seed}"

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix."""
        return self.arm != UNTIED

    @property
    def loss(self) -> Loss[LayeredNetwork]:
        """The loss that the arm is trained on."""
        if self.arm not in (MYOPIC, STOPPED):
            return output_nats
        return stopped_nats if self.arm == STOPPED else myopic_nats


def output_nats(
    network: LayeredNetwork, tokens: Int[Tensor, "text pos"], _seeds: Int[Tensor, " text"]
) -> Tensor:
    """The loss at the output."""
    return mean_nats(network.read(network.streams(tokens)[-1]), tokens)


def myopic_nats(
    network: LayeredNetwork, tokens: Int[Tensor, "text pos"], _seeds: Int[Tensor, " text"]
) -> Tensor:
    """The mean of the losses after each block."""
    return _mean_of_layers(network, network.streams(tokens), tokens)


def stopped_nats(
    network: LayeredNetwork, tokens: Int[Tensor, "text pos"], _seeds: Int[Tensor, " text"]
) -> Tensor:
    """The mean of the losses after each block, with each block learning only from its own."""
    return _mean_of_layers(network, network.streams(tokens, stopped=True), tokens)


def _mean_of_layers(
    network: LayeredNetwork, streams: list[Tensor], tokens: Int[Tensor, "text pos"]
) -> Tensor:
    return torch.stack([mean_nats(network.read(stream), tokens) for stream in streams[1:]]).mean()
