"""Every finding of the page on models of one, two and three layers."""

from collections.abc import Iterator

import pytest
import torch

from lens_interventions.pages.demo import SECTIONS
from lens_interventions.pages.demo.fitted import fitted
from lens_interventions.pages.demo.measured_model import MeasuredModel
from tests.support.less_is_read import less_is_read
from tests.support.tiny import tiny_bridge


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    """As units are measured, on few texts."""
    with torch.no_grad(), less_is_read():
        yield


@pytest.fixture(scope="module", params=[1, 2, 3])
def model(request: pytest.FixtureRequest) -> MeasuredModel:
    """Of a model with room for the page's texts, which are long in a vocabulary of 112."""
    return MeasuredModel(
        tiny_bridge("llama", num_hidden_layers=request.param, max_position_embeddings=1024)
    )


# Fitting a lens is no matter of depth, and slow.
@pytest.mark.parametrize("section", [section for section in SECTIONS if section is not fitted])
@pytest.mark.filterwarnings("error")
def test_every_finding_is_judged(model: MeasuredModel, section) -> None:
    found = section(model)
    assert found.conditions
    assert found.figures
    assert "nan" not in found.brief
