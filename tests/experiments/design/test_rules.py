"""Sampling rules."""

import pytest

from lens_interventions.experiments.loops import Rule


@pytest.mark.parametrize(
    ("rule", "name", "family"),
    [
        (Rule(), "greedy", "greedy"),
        (Rule(repetition_penalty=1.1), "repetition penalty 1.1", "repetition penalty"),
        (Rule(sample=True), "temperature 1", "temperature"),
        (Rule(sample=True, temperature=0.7), "temperature 0.7", "temperature"),
        (Rule(sample=True, top_p=0.9), "top-p 0.9", "top-p"),
        (Rule(sample=True, min_p=0.1), "min-p 0.1", "min-p"),
    ],
)
def test_rules_have_names(rule: Rule, name: str, family: str) -> None:
    assert str(rule) == name
    assert rule.family == family
