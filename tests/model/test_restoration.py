"""What was changed for a while is put back, though an interrupt comes while that is done."""

import ast
import itertools
import linecache
import re
import sys
from contextlib import contextmanager

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.model import restoration
from lens_interventions.model.bypass import Unwrapping
from lens_interventions.model.exclusive import exclusive
from lens_interventions.model.gradients import frozen
from lens_interventions.model.hooks import (
    hooked,
    hooks_as_found,
    temporary_hooks,
    torch_hooks_as_found,
    without_hooks,
)
from lens_interventions.model.other_weights import attention_inputs, matrix, other_weights
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.clean import left_as_found
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge, tiny_bridge


def other_attention(bridge):
    modules = attention_inputs(bridge, 1).values()
    return other_weights(bridge, {module: 2 * matrix(module) for module in modules}, "twice")


@contextmanager
def with_torch_hooks(bridge):
    with torch_hooks_as_found(bridge.blocks):
        bridge.blocks[0].register_forward_hook(lambda *_: None, always_call=True)
        bridge.blocks[1].register_forward_pre_hook(lambda *_: None, with_kwargs=True)
        yield


TWO_HOOKS = [(f"blocks.{n}.hook_resid_pre", lambda x, hook: 2 * x) for n in (0, 1)]

CHANGES = {
    "modules": lambda bridge: Unwrapping(bridge)(),
    "forwards": lambda bridge: replaced_forwards(
        [(block, lambda *_, **__: None) for block in bridge.blocks]
    ),
    "weights": other_attention,
    "hooks on": lambda bridge: temporary_hooks(
        [(bridge.hook_dict[name], hook) for name, hook in TWO_HOOKS]
    ),
    "torch's hooks on": with_torch_hooks,
    "hooks off": lambda bridge: without_hooks(bridge.hook_points()),
    "gradients": frozen,
}


# How TransformerLens puts hooks on and takes them off.
HOOKING = {
    *("_hooks_context", "add_hook_to_point", "_remove_temporary_hook"),
    *("add_hook", "remove_hooks", "_remove_hooks"),
}


def called_by_restore(frame):
    return frame.f_back.f_code.co_filename == restoration.__file__


def puts_on_hooks(frame):
    return frame.f_code.co_name in HOOKING


@contextmanager
def interrupted_at(number, within):
    """An interrupt before a line, counted from 0, of some functions; whether it came."""
    seen, came = 0, []

    def follow(frame, event, _argument):
        nonlocal seen
        if event == "call" and not within(frame):
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


def lines_at_which_the_model_is_left_as_it_was(change, within):
    """After an interrupt before each line, with hooks of the user on the model; their number."""
    bridge = shared_bridge("llama", dtype=torch.float32)
    with bridge.hooks(
        fwd_hooks=[(f"blocks.{n}.hook_resid_post", lambda x, hook: x + 1) for n in (0, 1)]
    ):
        lines = 0
        came = [None]
        while came:
            level = bridge.context_level
            with left_as_found(bridge), interrupted_at(lines, within) as came, change(bridge):
                pass
            assert bridge.context_level == level
            lines += 1
    return lines


@pytest.mark.parametrize("what", CHANGES)
def test_an_interrupt_on_the_way_back_leaves_the_model_as_it_was(what):
    assert lines_at_which_the_model_is_left_as_it_was(CHANGES[what], called_by_restore) > 1


@pytest.mark.parametrize("what", CHANGES)
def test_what_an_interrupt_leaves_changed_is_put_back_when_the_call_ends(what):
    """Between `__enter__` and the block, and between the block and `__exit__`, none of both acts.

    The generator behind the `with` lives on in the traceback, and is closed when that is gone.
    """
    bridge, kept = shared_bridge("llama", dtype=torch.float32), []

    @exclusive
    def interrupted(bridge: TransformerBridge) -> None:
        kept.append(CHANGES[what](bridge))
        kept[0].__enter__()
        raise KeyboardInterrupt

    with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda x, hook: x + 1)]):
        with left_as_found(bridge), pytest.raises(KeyboardInterrupt):
            interrupted(bridge)
        with left_as_found(bridge):
            kept.pop().gen.close()


def test_what_the_user_has_changed_since_stays():
    bridge, kept = tiny_bridge("llama"), []

    @exclusive
    def interrupted(bridge: TransformerBridge) -> None:
        kept.append(CHANGES["forwards"](bridge))
        kept[0].__enter__()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(bridge)
    own = vars(bridge.blocks[0])["forward"] = lambda *_, **__: None
    kept.pop().gen.close()
    assert vars(bridge.blocks[0])["forward"] is own


def test_a_block_of_the_user_outlives_the_calls_inside():
    bridge = tiny_bridge("llama")
    tokens = torch.arange(4, 10)[None]
    plain = bridge(tokens)
    with other_attention(bridge):
        other = bridge(tokens)
        li.logit_lens(bridge, tokens)
        assert torch.equal(bridge(tokens), other)
    assert torch.equal(bridge(tokens), plain)
    assert not torch.equal(other, plain)


@pytest.mark.usefixtures("as_users_run")
def test_a_block_that_the_user_opens_during_a_call_outlives_it():
    """Here by an iterator of texts that runs inside its own `with`."""
    bridge = tiny_bridge("llama")
    tokens = torch.arange(4, 10)[None]
    plain = bridge(tokens)

    def texts():
        modules = attention_inputs(bridge, 1).values()
        weights = {module: 2 * matrix(module) for module in modules}
        with other_weights(bridge, weights, "twice", of_user=True):
            yield [5, 6, 7, 8]
            yield [9, 8, 7, 6]
            yield bridge(tokens)

    some = texts()
    li.unlikely_components(bridge, itertools.islice(some, 2), progress=False)
    assert not torch.equal(next(some), plain)
    some.close()
    assert torch.equal(bridge(tokens), plain)


@contextmanager
def cached(bridge):
    with hooks_as_found(bridge):
        bridge.run_with_cache(torch.arange(4, 8)[None], names_filter=[TWO_HOOKS[0][0]])
        yield


HOOKED = {
    "by name": lambda bridge: hooked(bridge, TWO_HOOKS),
    "by point": CHANGES["hooks on"],
    "for a cache": cached,
}


@pytest.mark.parametrize("how", HOOKED)
def test_an_interrupt_while_hooks_are_put_on_or_taken_off_leaves_none_on(how):
    """Also after torch has one and before TransformerLens knows of it."""
    assert lines_at_which_the_model_is_left_as_it_was(HOOKED[how], puts_on_hooks) > 10


def test_the_library_puts_on_all_its_hooks_this_way():
    """`bridge.hooks` itself leaves hooks on if an interrupt comes while it takes them off."""
    puts_on = re.compile(r"hooks|add_(perma_)?hook|run_with_(cache|hooks)|register_\w*hook")
    found = []
    for file in sorted((ROOT / "lens_interventions").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and puts_on.fullmatch(called.attr):
                found.append((file.name, called.attr))
    # Each of these is inside `hooks_as_found`, `torch_hooks_as_found` or `temporary_hooks`.
    assert sorted(found) == [
        ("bypass.py", "register_forward_hook"),
        ("capabilities.py", "register_forward_hook"),
        ("components.py", "run_with_cache"),
        ("hooks.py", "add_hook"),
        ("hooks.py", "hooks"),
    ]
