"""What was changed for a while is put back, though an interrupt comes while that is done."""

import linecache
import sys
from contextlib import contextmanager

import pytest
import torch

from lens_interventions.model import restoration
from lens_interventions.model.bypass import Unwrapping
from lens_interventions.model.gradients import frozen
from lens_interventions.model.hooks import temporary_hooks, without_hooks
from lens_interventions.model.other_weights import attention_inputs, matrix, other_weights
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge


def other_attention(bridge):
    modules = attention_inputs(bridge, 1).values()
    return other_weights(bridge, {module: 2 * matrix(module) for module in modules}, "twice")


CHANGES = {
    "modules": lambda bridge: Unwrapping(bridge)(),
    "forwards": lambda bridge: replaced_forwards(
        [(block, lambda *_, **__: None) for block in bridge.blocks]
    ),
    "weights": other_attention,
    "hooks on": lambda bridge: temporary_hooks(
        [(bridge.hook_dict[f"blocks.{n}.hook_resid_pre"], lambda x, hook: 2 * x) for n in (0, 1)]
    ),
    "hooks off": lambda bridge: without_hooks(bridge.hook_points()),
    "gradients": frozen,
}


@contextmanager
def interrupted_at(number):
    """An interrupt before a line, counted from 0, of what `restore` calls; whether it came."""
    seen, came = 0, []

    def follow(frame, event, _argument):
        nonlocal seen
        if event == "call" and frame.f_back.f_code.co_filename != restoration.__file__:
            return None
        # Python traces the first line of a with block again on the way out, where it looks for
        # no interrupts.
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and not line.lstrip().startswith("with "):
            if seen == number:
                came.append(number)
                raise KeyboardInterrupt
            seen += 1
        return follow

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        yield came
    except KeyboardInterrupt:
        assert came
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("what", CHANGES)
def test_an_interrupt_on_the_way_back_leaves_the_model_as_it_was(what):
    bridge = shared_bridge("llama", dtype=torch.float32)
    with bridge.hooks(
        fwd_hooks=[(f"blocks.{n}.hook_resid_post", lambda x, hook: x + 1) for n in (0, 1)]
    ):
        lines = 0
        came = [None]
        while came:
            with left_as_found(bridge), interrupted_at(lines) as came, CHANGES[what](bridge):
                pass
            lines += 1
    assert lines > 1
