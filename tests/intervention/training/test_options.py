"""Options of a training that make no sense are refused."""

import jaxtyping
import pytest

import lens_interventions as li


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"window": 1}, "at least 2 tokens"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"warmup": 1.0}, "share of the steps"),
        # A patch has these, a learned write has not.
        ({"scale": "deviation"}, "scale 'raw' or 'norm', got 'W_E' with 'deviation'"),
        ({"embedding": "lens"}, "embedding 'W_E' or 'W_U' .* got 'lens' with 'raw'"),
    ],
)
def test_options_that_make_no_sense(fields, message, monkeypatch):
    # Users run without the type checks of the test session, which would speak first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        li.TrainingOptions(**fields)
