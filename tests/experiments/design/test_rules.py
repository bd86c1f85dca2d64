"""Sampling rules."""

import pytest

from lens_interventions.experiments.loops import Rule

LOWER = "DoLa against lower layers"


@pytest.mark.parametrize(
    ("rule", "name", "family"),
    [
        (Rule(), "greedy", "greedy"),
        (Rule(repetition_penalty=1.1), "repetition penalty 1.1", "repetition penalty"),
        (Rule(sample=True), "temperature 1", "temperature"),
        (Rule(sample=True, temperature=0.7), "temperature 0.7", "temperature"),
        (Rule(sample=True, top_p=0.9), "top-p 0.9", "top-p"),
        (Rule(sample=True, min_p=0.1), "min-p 0.1", "min-p"),
        (Rule(layer_contrast=LOWER), "DoLa against lower layers", "DoLa"),
        (
            Rule(layer_contrast=LOWER, repetition_penalty=1.2),
            "DoLa against lower layers, repetition penalty 1.2",
            "DoLa",
        ),
        (Rule(sample=True, layer_contrast="SLED"), "temperature 1, SLED", "SLED"),
    ],
)
def test_rules_have_names(rule: Rule, name: str, family: str) -> None:
    assert str(rule) == name
    assert rule.family == family


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown layer contrast 'DoLa'; there are DoLa against"):
        Rule(layer_contrast="DoLa")
