"""Which texts the stages of the slopes experiment measure."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lens_interventions.experiments.design.material import induction_sequences, text_sequences
from lens_interventions.experiments.slopes.settings import COPIES, NATURAL
from lens_interventions.experiments.slopes.stages import (
    ceiling_stage,
    head_stage,
    materials_of,
    rescue_stage,
)
from tests.support.architectures import N_CTX
from tests.support.small_slopes import SMALL
from tests.support.tiny import tiny_bridge


@pytest.mark.parametrize("stage", [head_stage, rescue_stage])
def test_mechanisms_are_measured_on_texts_of_the_half_that_reports(stage: Callable) -> None:
    bridge = tiny_bridge("gpt2")
    of = {
        NATURAL: text_sequences(bridge, SMALL.long_material),
        COPIES: induction_sequences(bridge, SMALL.material),
    }
    units = stage(bridge, SMALL, {})
    assert {unit.parameters["material"] for unit in units} == {NATURAL, COPIES}
    for unit in units:
        texts = of[unit.parameters["material"]]
        expected = [text.values() for text in texts if text.half == "report"]
        assert unit.parameters["sequences"] == expected[: SMALL.mechanism_texts]
        assert unit.parameters["sequences"]


def test_a_ceiling_of_texts_that_the_model_cannot_read_at_once_is_refused() -> None:
    settings = replace(SMALL, ceiling_tokens=N_CTX + 1)
    with pytest.raises(ValueError, match=f"ceiling_tokens makes texts of {N_CTX + 1} tokens"):
        materials_of(tiny_bridge("gpt2"), settings)


def test_linear_writes_are_fitted_to_texts_that_none_of_their_slopes_are_measured_on() -> None:
    bridge = tiny_bridge("gpt2")
    (unit,) = ceiling_stage(bridge, SMALL, {})
    fitted, held_out = unit.parameters["texts"], unit.parameters["held_out"]
    assert {text["half"] for text in fitted} == {"selection"}
    assert {text["half"] for text in held_out} == {"report"}
    assert not {text["cluster"] for text in fitted} & {text["cluster"] for text in held_out}
