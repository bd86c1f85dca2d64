"""The list of experiments is that of the command line."""

import pytest

import lens_interventions as li
from lens_interventions.cli.experiment import OWN_MODELS, Name
from lens_interventions.experiments.plans import ABOUT_PATCHES, PLANS
from tests.support import small_copying
from tests.support.tiny import shared_bridge


def test_every_experiment_with_a_model_of_the_users_has_a_plan() -> None:
    assert set(PLANS) == set(Name) - set(OWN_MODELS)
    assert {*PLANS, *OWN_MODELS} > ABOUT_PATCHES


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("name", sorted({*PLANS, *OWN_MODELS} - {"copying"}))
def test_settings_of_another_experiment_leave_no_directory(name, tmp_path) -> None:
    run, out = getattr(li.experiments, name), tmp_path / "run"
    model = [] if name in OWN_MODELS else [shared_bridge("llama")]
    with pytest.raises(TypeError, match=r"settings must be of the class .* got CopyingSettings"):
        run(*model, settings=small_copying.SETTINGS, out=out)
    assert not out.exists()
