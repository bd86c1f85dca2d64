"""A small run of the likeliest experiment."""

from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.likeliest import LikeliestSettings

SETTINGS = LikeliestSettings(
    prompts=3,
    choosing=2,
    variants=("exponentiated", "gumbel"),
    lengths=(4, 16),
    width=4,
    narrow=(),
    more=2,
    resampling=Resampling(n_resamples=199),
)
