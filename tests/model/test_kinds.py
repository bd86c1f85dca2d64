"""Models of other kinds than those that a function takes."""

import pytest
from torch import nn

import lens_interventions as li

PATCH = li.NextTokenPatch(layer=0, strength=0.5)
CALLS = (li.logit_lens, li.fit_affine_lens, PATCH.fwd_hooks, li.generate, li.teacher_forced_logits)

pytestmark = pytest.mark.usefixtures("as_users_run")


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_model_of_transformer_lens_is_refused(call):
    with pytest.raises(TypeError, match="expects a TransformerBridge, got a Linear: boot one with"):
        call(nn.Linear(2, 2), [[1, 2]])


def test_an_experiment_refuses_what_a_function_makes(tmp_path):
    with pytest.raises(TypeError, match="an experiment expects a TransformerBridge, got a Linear"):
        li.experiments.copying(lambda: nn.Linear(2, 2), out=tmp_path)
