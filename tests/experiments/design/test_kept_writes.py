"""Learned writes as bytes and text."""

import torch

from lens_interventions.experiments.design.kept_writes import (
    decoded_write,
    encoded_write,
    read_write,
    write_bytes,
)
from tests.intervention.test_learned_write import random_write
from tests.support.small_training import assert_same_bits
from tests.support.tiny import shared_bridge


def test_a_write_comes_back_from_its_bytes() -> None:
    write = random_write(shared_bridge("llama"), layers=(0, 2), gate=True)
    back = read_write(write_bytes(write))
    assert back.settings == write.settings
    for name in ("down", "up", "bias", "gate_weight", "gate_bias"):
        torch.testing.assert_close(
            getattr(back, name), getattr(write, name).float(), rtol=0, atol=0
        )
    assert write_bytes(write) == write_bytes(write)
    assert_same_bits(read_write(write_bytes(back)), back)
    assert_same_bits(decoded_write(encoded_write(write_bytes(write))), back)
