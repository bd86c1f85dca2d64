"""The model of a run: where it may go, and what it may carry."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from lens_interventions.experiments import run
from tests.support.small_run import example, small_bridge


def test_a_live_bridge_cannot_go_to_another_process() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match="give the experiment the model's name or directory"),
    ):
        run(example(), small_bridge(), executor=pool)


def test_hooks_on_the_bridge_are_refused() -> None:
    bridge = small_bridge()
    with (
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x)]),
        pytest.raises(ValueError, match="hooks on the bridge"),
    ):
        run(example(), bridge)
