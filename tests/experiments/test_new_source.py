"""A source that is added to the registry, and nowhere else, is a control of three experiments."""

import dataclasses
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lens_interventions import NextTokenPatch
from lens_interventions.experiments import Result, copying, loops
from lens_interventions.experiments.design.conditions import Arm, arm_label
from lens_interventions.experiments.learned.settings import trained_sources
from lens_interventions.intervention.site import PatchSite
from lens_interventions.intervention.sources import SOURCES, Source
from tests.support.planted import planted_bridge
from tests.support.planted_learned import SHORT
from tests.support.planted_learned import run as learned
from tests.support.small_copying import SETTINGS as COPYING
from tests.support.small_loops import SETTINGS as LOOPS
from tests.support.small_loops import roomy_bridge

pytestmark = [pytest.mark.usefixtures("few_templates"), pytest.mark.long]


def second(site: PatchSite) -> Tensor:
    """The token two before the position's own; where there is none nothing is patched."""
    return site.token_at(site.position - 2)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "second", Source("second", "second-last token", second))


def run_copying() -> Result:
    small = dataclasses.replace(
        COPYING,
        layers=(1,),
        modes=("interpolate",),
        induction_sequences=(2, 2),
        template_words=(1, 1),
        documents=(2, 2),
        document_tokens=24,
    )
    # In half the time of float64; no number here needs more.
    return copying(partial(planted_bridge, torch.float32), settings=small)


def run_loops() -> Result:
    small = dataclasses.replace(
        LOOPS,
        layers=(1,),
        strengths=(0.5,),
        prompts=4,
        new_tokens=16,
        search_tokens=16,
        temperatures=(),
        penalties=(),
        top_p=(),
        min_p=(),
        passages=2,
        documents=2,
    )
    return loops(roomy_bridge, settings=small)


def run_learned() -> Result:
    small = dataclasses.replace(
        SHORT, sweep_layers=(), sweep_ranks=(), steps=1, sampled_tokens=16, read_sequences=1
    )
    return learned(small)


@pytest.mark.parametrize("run", [run_copying, run_loops, run_learned])
def test_each_of_them_runs_and_reports_it(run: Callable[[], Result]) -> None:
    result = run()
    assert "second" in set(result.to_dataframe()["source"])
    assert "second" in str(result.figures().values())


def test_it_is_known_by_name() -> None:
    patch = NextTokenPatch(layer=1, strength=0.5, source="second")
    assert NextTokenPatch.from_json(patch.to_json()) == patch
    assert arm_label(Arm("second", 1, 0.5, "add")) == "second-last token"
    assert trained_sources()[:4] == ("true", "current", "guess", "second")
    with pytest.raises(ValueError, match="'zero', 'second' or a function; got 'next'"):
        NextTokenPatch(layer=1, strength=0.5, source="next")
