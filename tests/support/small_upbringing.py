"""Small networks that are read at every layer, and a small upbringing experiment."""

from lens_interventions.experiments import UpbringingSettings
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.small_networks.shape import Shape
from lens_interventions.experiments.upbringing.network import LayeredNetwork
from tests.support.drawn_anew import drawn_anew

SHAPE = Shape(n_layers=2, d_model=16, n_heads=2, context=24, d_vocab=112)


def small_network(*, tied: bool = True) -> LayeredNetwork:
    """A network whose parameters were all drawn anew, in float64."""
    return drawn_anew(LayeredNetwork(SHAPE, tied=tied, seed=0).double(), 0)


SMALL = UpbringingSettings(
    texts=("prose",),
    vocabulary=300,
    context=48,
    width=8,
    heads=2,
    blocks=2,
    seeds=(0, 1),
    steps=6,
    batch=2,
    warm_up=2,
    evaluate_every=3,
    windows=(6, 12),
    fitted_windows=40,
    resampling=Resampling(n_resamples=99),
)
