"""The arms, which differ in how a network is trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..design.small_networks.training import mean_nats
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

    def loss(
        self,
        network: LayeredNetwork,
        tokens: Int[Tensor, "text pos"],
        _seeds: Int[Tensor, " text"],
    ) -> Tensor:
        """The loss that the arm is trained on: at the output, or the mean after each block.

        If the arm is stopped, each block learns only from its own.
        """
        streams = network.streams(tokens, stopped=self.arm == STOPPED)
        read = streams[1:] if self.arm in (MYOPIC, STOPPED) else streams[-1:]
        return torch.stack([mean_nats(network.read(stream), tokens) for stream in read]).mean()
