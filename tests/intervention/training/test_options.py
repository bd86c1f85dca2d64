"""Options of a training that make no sense are refused."""

import jaxtyping
import pytest

import lens_interventions as li


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"window": 1}, "window must be at least 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and above 0, .* got 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite and above 0, .* got inf"),
        ({"warmup": 1.0}, "share of the steps"),
        ({"final_rate": 1.1}, "final_rate is a share .* got 1.1"),
        ({"write_penalty": -1.0}, "write_penalty and change_penalty must be finite and at least 0"),
        ({"change_penalty": float("inf")}, "got 0.0 and inf"),
        # A patch has these, a learned write has not.
        ({"scale": "deviation"}, "scale 'raw' or 'norm', got 'W_E' with 'deviation'"),
        ({"embedding": "lens"}, "embedding 'W_E', 'W_E_centred' or 'W_U' .* got 'lens' with 'raw'"),
    ],
)
def test_options_that_make_no_sense(fields, message, monkeypatch):
    # Users run without the type checks of the test session, which would speak first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        li.TrainingOptions(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bias": "no"}, "bias must be of the class bool, got str 'no'"),
        ({"input_gate": 1}, "input_gate must be of the class bool, got int 1"),
        ({"learning_rate": "a"}, "learning_rate must be a number, got str 'a'"),
        ({"final_rate": None}, "final_rate must be a number, got NoneType None"),
        ({"write_penalty": True}, "write_penalty must be a number, got bool True"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_options_of_another_type(fields, message):
    with pytest.raises(TypeError, match=message):
        li.TrainingOptions(**fields)
