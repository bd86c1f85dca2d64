"""Trainings and writes as rows and parameters hold them."""

import dataclasses

import pytest
import torch

from lens_interventions.experiments.learned.writes import (
    Training,
    read_write,
    write_bytes,
)
from tests.intervention.test_learned_write import random_write
from tests.support.small_training import assert_same_bits
from tests.support.tiny import shared_bridge


class TestWrites:
    def test_a_write_comes_back_from_its_bytes(self) -> None:
        write = random_write(shared_bridge("llama"), layers=(0, 2), gate=True)
        back = read_write(write_bytes(write))
        assert back.settings == write.settings
        for name in ("down", "up", "bias", "gate_weight", "gate_bias"):
            torch.testing.assert_close(
                getattr(back, name), getattr(write, name).float(), rtol=0, atol=0
            )
        assert write_bytes(write) == write_bytes(write)
        assert_same_bits(read_write(write_bytes(back)), back)

    @pytest.mark.parametrize("rank", [None, 8])
    def test_a_training_comes_back_from_its_columns(self, rank: int | None) -> None:
        training = Training("guess", 3, rank, 40, 2)
        assert Training.from_columns(training.columns()) == training
        assert training.own_arm != dataclasses.replace(training, seed=1).own_arm
        assert training.arm == dataclasses.replace(training, seed=1).arm
