"""Models of one, two and three layers: every experiment's points and every finding of the page."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from lens_interventions.pages.demo.readings import Readings

from lens_interventions.experiments.preservation import PreservationSettings, preservation
from lens_interventions.experiments.preservation.lens_ranks import points_read
from lens_interventions.experiments.preservation.token_rows import later
from lens_interventions.pages.demo import SECTIONS
from lens_interventions.pages.demo.fitted import fitted
from tests.experiments.preservation.test_preservation import SMALL
from tests.support.tiny import tiny_bridge


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """As units are measured."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=[1, 2, 3])
def readings(request: pytest.FixtureRequest) -> Readings:
    """Of a model with room for the page's texts, which are long in a vocabulary of 112."""
    return Readings(
        tiny_bridge("llama", num_hidden_layers=request.param, max_position_embeddings=1024)
    )


# Fitting a lens is no matter of depth, and slow.
@pytest.mark.parametrize("section", [section for section in SECTIONS if section is not fitted])
@pytest.mark.filterwarnings("error")
def test_every_finding_is_judged(readings: Readings, section) -> None:
    found = section(readings)
    assert found.conditions
    assert found.figures
    assert "nan" not in found.brief


def test_preservation_has_a_verdict_on_every_question(readings: Readings) -> None:
    every = PreservationSettings.preset("quick").every
    result = preservation(readings.bridge, settings=replace(SMALL, every=every))
    assert len(result.verdicts) == 4
    assert all(found.verdict.interval.n >= 4 for found in result.verdicts)


@pytest.mark.parametrize(
    ("n_layers", "every", "points", "judged"),
    [
        (1, 10, 2, (0,)),
        (2, 3, 3, (1,)),
        (3, 3, 4, (2,)),
        (4, 3, 5, (2, 3)),
        (10, 10, 5, (2, 3)),
        (30, 10, 4, (2,)),
        (30, 3, 11, (5, 6, 7, 8, 9)),
    ],
)
def test_points_are_left_to_judge_by(
    n_layers: int, every: int, points: int, judged: tuple[int, ...]
) -> None:
    labels = points_read(tiny_bridge("llama", num_hidden_layers=n_layers), every)
    assert len(labels) == points
    assert tuple(later(labels)) == judged
