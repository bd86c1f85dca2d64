"""Small networks that grow up with a write, and a small scratch experiment."""

from lens_interventions.experiments import ScratchSettings
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.small_networks.shape import Shape
from lens_interventions.experiments.scratch.arms import ScratchTraining
from lens_interventions.experiments.scratch.models import TrainedModel, trained_model
from lens_interventions.experiments.scratch.network import Network
from tests.support.drawn_anew import drawn_anew
from tests.support.tiny import tiny_tokenizer

SHAPE = Shape(n_layers=3, d_model=16, n_heads=2, context=24, d_vocab=112)


def small_network(entry: int, seed: int = 0, shape: Shape = SHAPE) -> Network:
    """A network whose parameters were all drawn anew, the write's among them, in float64."""
    return drawn_anew(Network(shape, entry, seed).double(), seed)


def small_model(network: Network, arm: str) -> TrainedModel:
    """The network as if it had been trained in an arm. It is used up."""
    training = ScratchTraining(network.shape.n_layers, network.entry, arm, seed=5)
    return trained_model(network, training, tiny_tokenizer())


SMALL = ScratchSettings(
    texts=("prose",),
    vocabulary=300,
    context=48,
    width=8,
    heads=2,
    networks=((1, 0),),
    arms=("none", "true", "current"),
    seeds=(0, 1),
    steps=6,
    batch=2,
    warm_up=2,
    evaluate_every=3,
    windows=(6, 12),
    copies=3,
    decoded=2,
    surprising=3.0,
    resampling=Resampling(n_resamples=99),
)
