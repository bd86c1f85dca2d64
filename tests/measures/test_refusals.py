"""Values that do not belong together or are no numbers are refused, where users run the library."""

import math

import numpy as np
import pytest
import torch

import lens_interventions as li

pytestmark = pytest.mark.usefixtures("as_users_run")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: li.intervals.mean_interval([1.0, 2.0], rng=0),
            TypeError,
            r"rng must be a generator, such as np.random.default_rng\(0\); got 0",
        ),
        (
            lambda: li.intervals.mean_interval(
                np.ma.masked_less(np.array([1.0, -9.0, 2.0]), 0), rng=np.random.default_rng(0)
            ),
            ValueError,
            "are masked: leave a cell out by a count of 0",
        ),
        *(
            (
                lambda some=some: li.behaviour.rep_n(torch.tensor([[1, 2, 3]]), 1, lengths=some),
                TypeError,
                "lengths must be whole numbers",
            )
            for some in ([2.9], torch.tensor([2.9]), [True])
        ),
        (
            lambda: li.intervals.share_difference_interval(
                np.ma.array([1, 1, 0], mask=[0, 0, 1]), [0, 0, 0]
            ),
            ValueError,
            "expected true or false",
        ),
        (
            lambda: li.intervals.sign_flip_p_values(np.ones((1, 3)), rng=None),
            TypeError,
            "rng must be a generator",
        ),
        (
            lambda: li.intervals.share_difference_interval([math.nan, 1.0], [0.0, 0.0]),
            ValueError,
            "expected true or false, or 1 or 0",
        ),
        (
            lambda: li.intervals.share_difference_interval(np.ones((2, 5)), np.zeros((2, 5))),
            ValueError,
            r"\[seq\], at least one; got \(2, 5\)",
        ),
        (
            lambda: li.behaviour.bin_totals(torch.ones(2, 5), torch.zeros(1, 5).long(), 2),
            ValueError,
            r"a bin for each value; got shapes \(2, 5\) and \(1, 5\)",
        ),
        (
            lambda: li.behaviour.surprise_distance(torch.ones(1, 5).long(), torch.ones(1, 5), 6.0),
            ValueError,
            r"of every token but the first, of shape \(1, 4\); got \(1, 5\)",
        ),
        (
            lambda: li.behaviour.surprise_distance(
                torch.ones(1, 5).long(), torch.ones(1, 4), math.nan
            ),
            ValueError,
            "surprising must be a number of nats",
        ),
        (
            lambda: li.behaviour.loop_free_survival([None], [40], min_length=-5),
            ValueError,
            "min_length >= 1",
        ),
        (
            lambda: li.behaviour.copyable(torch.ones(2, 3, 4).long()),
            ValueError,
            r"expected tokens \[batch, pos\] and a mask of the same shape; got \(2, 3, 4\)",
        ),
        (
            lambda: li.behaviour.copyable(torch.ones(2, 3).long(), mask=torch.ones(2, 4)),
            ValueError,
            r"got \(2, 3\) and \(2, 4\)",
        ),
    ],
)
def test_what_makes_no_sense_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
