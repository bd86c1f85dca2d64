"""A model for sections of the demo page, whose means over prose are made up."""

import numpy as np

from lens_interventions.lens.aggregate import LensAggregate
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.pages.demo.measured_model import MeasuredModel
from tests.support.tiny import shared_bridge


def made_up_model(statistics: dict[str, list[float]]) -> MeasuredModel:
    """A tiny model with these means over one text, one value for each point."""
    names = tuple(statistics)
    totals = np.array([statistics[name] for name in names], dtype=float)[..., None]
    points = ("0_pre", *(f"{i}_pre" for i in range(1, totals.shape[1] - 1)), "final_post")
    model = MeasuredModel(shared_bridge("llama"))
    model.prose = LensAggregate(points, names, totals, np.ones((len(names), 1), dtype=int))
    model.abstract = logit_lens(model.bridge, "the people say", divergences=("kl", "kl_reverse"))
    return model
