"""A result in a line of text."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

import lens_interventions as li
from lens_interventions._summary import summary
from lens_interventions.model.tokens import token_batch
from tests.support.tiny import shared_bridge


@dataclass(frozen=True, eq=False)
class Something:
    shares: torch.Tensor
    sums: tuple[np.ndarray, ...]
    table: pd.DataFrame
    points: tuple[str, ...]
    level: float
    hidden: str = field(default="", repr=False)

    __repr__ = summary


def test_arrays_are_shapes_and_long_values_are_cut():
    one = Something(
        torch.zeros(2, 30),
        (np.zeros(3), np.zeros((1, 4))),
        pd.DataFrame({"a": [1, 2]}),
        tuple(f"{layer}_pre" for layer in range(30)),
        0.95,
    )
    assert repr(one) == (
        "Something(shares=[2, 30], sums=([3], [1, 4]), table=[2, 1], "
        "points=('0_pre', '1_pre', '2_pre', '3_pre', '4_pre', '5_pre', ...), level=0.95)"
    )


def test_tokens_and_bins_are_told_by_their_shapes():
    tokens = token_batch(shared_bridge("gpt2"), [[1, 2, 3], [4]])
    assert repr(tokens) == "TokenBatch(tokens=[2, 3], mask=[2, 3])"
    bins = li.behaviour.bin_by(torch.zeros(2, 3), [1.0])
    assert repr(bins).startswith("Bins(index=[2, 3], labels=(")
