"""When the input counts as discarded."""

import pytest

from lens_interventions.pages.demo.discarding import discarding
from tests.support.made_up_model import made_up_model


@pytest.mark.parametrize(
    ("to_final", "to_input", "shares", "holds"),
    [
        ([90, 10, 0], [0, 20, 15], [0.9, 0.01, 0.01], (True, True, True)),
        ([90, 30, 0], [0, 20, 15], [0.9, 0.01, 0.01], (False, True, True)),
        ([30, 10, 0], [0, 25, 15], [0.9, 0.01, 0.01], (True, False, True)),
        ([90, 10, 0], [0, 20, 15], [0.9, 0.20, 0.01], (True, True, False)),
    ],
)
def test_discarding_is_judged_across_the_first_block(to_final, to_input, shares, holds):
    model = made_up_model(
        {
            "kl_final": to_final,
            "kl_input": to_input,
            "agrees_input": shares,
            "log10_input_rank": [0, 2, 3],
        }
    )
    assert tuple(condition.holds for condition in discarding(model).conditions) == holds


def test_the_output_is_not_called_a_block():
    model = made_up_model(
        {
            "kl_final": [90, 10, 0],
            "kl_input": [0, 20, 15],
            "agrees_input": [0.9, 0.01, 0.2],
            "log10_input_rank": [0, 2, 3],
        }
    )
    *_, looks = discarding(model).conditions
    assert looks.measured == "at most 20.0% (at the output); at the input itself 90%"
