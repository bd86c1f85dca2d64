"""The write of each arm, and the trainings of a run."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..._counter_random import random_integers
from ...drawing.labels import counted
from ..design.conditions import LONGER
from .network import NO_TOKEN, NOTHING

NONE = "none"
"""The arm without a write."""

ARMS = (NONE, "true", "current", "previous", "shuffled", "zero")

UNWRITTEN = (NONE, LONGER)
"""The arms without a write: for as many steps as the others, and for as many operations."""


@dataclass(frozen=True)
class ScratchTraining:
    """One training.

    Attributes:
        blocks: the number of blocks of the network.
        entry: the block whose incoming stream is written to.
        arm: the source that is written; "none" and "none-longer" write nothing.
        seed: the seed of the first weights, the order of the text and random sources.
    """

    blocks: int
    entry: int
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """A name that is unique to the training and fit for a file."""
        return f"blocks{self.blocks}-entry{self.entry}-{self.arm}-seed{self.seed}"

    def columns(self) -> dict[str, Any]:
        """The training as columns of a row, and as parameters: `ScratchTraining(**columns)`."""
        return asdict(self)


def name_of(blocks: int, entry: int) -> str:
    """A network in words."""
    return f"{counted(blocks, 'block')}, written to at block {entry}"


def written_tokens(
    arm: str, tokens: Int[Tensor, "text pos"], seed: int, text_seeds: Int[Tensor, " text"]
) -> Int[Tensor, "text pos"] | None:
    """The tokens that `Network` writes at each position of texts in an arm; None for no patch.

    The draws are those of a `NextTokenPatch` with this `seed` and these `text_seeds`. At the last
    position, whose next token is not known, the write is never read.

    Raises `ValueError` for an unknown arm.
    """
    position = torch.arange(tokens.shape[1], device=tokens.device)[None]
    if arm in UNWRITTEN:
        return None
    if arm == "true":
        return tokens.roll(-1, dims=1)
    if arm == "current":
        return tokens
    if arm == "previous":
        return tokens.roll(1, dims=1).where(position > 0, NOTHING)
    if arm == "shuffled":
        earlier = random_integers(position.clamp(min=1), seed, text_seeds[:, None], position)
        return tokens.gather(1, earlier + 1).where(position > 0, NOTHING)
    if arm == "zero":
        return torch.full_like(tokens, NO_TOKEN)
    raise ValueError(f"arm must be one of {', '.join(ARMS)}; got {arm!r}")
