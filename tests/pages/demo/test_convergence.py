"""When the guesses of the layers count as converging."""

import pytest

from lens_interventions.pages.demo.convergence import convergence
from tests.support.made_up_model import made_up_model


@pytest.mark.parametrize(
    ("kl", "rank", "verdict"),
    [
        ([90, 9, 8, 7, 6, 5, 0], [4, 2, 2, 1.9, 1, 0.5, 0], "agrees"),
        ([90, 9, 8, 7, 6, 5, 0], [4, 2, 2, 2.1, 1, 0.5, 0], "partly"),
        ([90, 5, 6, 7, 8, 5, 0], [4, 2, 2, 1.9, 1, 0.5, 0], "partly"),
        ([90, 5, 6, 7, 8, 5, 0], [4, 2, 2, 2.1, 1, 0.5, 0], "disagrees"),
    ],
)
def test_convergence_is_judged_by_falling_divergence_and_the_middle_rank(kl, rank, verdict):
    model = made_up_model({"kl_final": kl, "log10_final_rank": rank, "agrees_final": [0] * 6 + [1]})
    assert convergence(model).verdict == verdict
