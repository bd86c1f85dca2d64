"""Residual streams recorded during a run, with their tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..model.tokens import TokenBatch


@dataclass(frozen=True, eq=False)
class RecordedStreams:
    """Residual streams that a lens can read without running the model.

    Attributes:
        batch: the tokens, padded on the right.
        streams: `[batch, pos, d_model]` by residual point, on the model's device.
    """

    batch: TokenBatch
    streams: Mapping[str, Float[Tensor, "batch pos d_model"]]

    def at(self, labels: Sequence[str]) -> dict[str, Float[Tensor, "batch pos d_model"]]:
        """The streams at some points.

        Raises `ValueError` if a point was not recorded.
        """
        missing = [label for label in labels if label not in self.streams]
        if missing:
            raise ValueError(
                f"the residual stream was not recorded at {missing}, only at {list(self.streams)}: "
                "choose other points"
            )
        return {label: self.streams[label] for label in labels}
