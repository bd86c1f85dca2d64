"""The list of experiments is that of the command line."""

from lens_interventions.cli.experiment import _OWN_MODELS, Name
from lens_interventions.experiments.plans import PLANS


def test_every_experiment_with_a_model_of_the_users_has_a_plan() -> None:
    assert set(PLANS) == {name.value for name in Name} - {name.value for name in _OWN_MODELS}
