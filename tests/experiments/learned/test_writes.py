"""Trainings as rows and parameters hold them."""

import dataclasses

import pytest

from lens_interventions.experiments.learned.writes import Training


@pytest.mark.parametrize("rank", [None, 8])
def test_a_training_comes_back_from_its_columns(rank: int | None) -> None:
    training = Training("guess", 3, rank, 40, 2)
    assert Training.from_columns(training.columns()) == training
    assert training.own_arm != dataclasses.replace(training, seed=1).own_arm
    assert training.arm == dataclasses.replace(training, seed=1).arm
