"""Options of a training that make no sense are refused."""

import pytest

import lens_interventions as li


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"window": 1}, "at least 2 tokens"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"warmup": 1.0}, "share of the steps"),
    ],
)
def test_options_that_make_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        li.TrainingOptions(**fields)
