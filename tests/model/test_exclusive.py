"""Threads that share a model: each gets what it would get alone."""

import ast
import copy
import gc
import multiprocessing
import os
import re
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.model import exclusive
from lens_interventions.model.exclusive import exclusive_use
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge, tiny_bridge

PATCH = li.NextTokenPatch(layer=1, strength=0.5)
TEXTS = (torch.arange(3, 20)[None], torch.arange(40, 51).flip(0)[None])
N_THREADS = 6
CALLS = {
    "teacher forcing": lambda bridge, text: li.teacher_forced_logits(bridge, text, [PATCH, None]),
    "generation": lambda bridge, text: li.generate(bridge, text, PATCH, max_new_tokens=3).log_probs,
    "lens": lambda bridge, text: li.logit_lens(bridge, text).entropy,
    "effect map": lambda bridge, text: (
        li.effect_map(bridge, text, lambda logits: logits[0, -1, 0], patch=PATCH).effect
    ),
}
WORK = [(name, text) for name in CALLS for text in range(len(TEXTS))]


@pytest.fixture
def many_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work):
    """`work(i)` for i below `N_THREADS`, begun together; errors pass through."""
    start = threading.Barrier(N_THREADS)

    def begin(i):
        start.wait(timeout=60)
        return work(i)

    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(begin, range(N_THREADS), timeout=300))


def said_by_a_child(bridge, sender):
    # Nothing is run: threads of torch do not survive a fork.
    try:
        with exclusive_use(bridge):
            sender.send("it would run")
    except RuntimeError as error:
        sender.send(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no process")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_was_forked_in_the_middle_of_a_run_is_told():
    """It holds a copy of the lock, and nobody who gives it back."""
    running, free = shared_bridge("llama"), shared_bridge("gpt2")
    receiver, sender = multiprocessing.Pipe(duplex=False)
    forked = multiprocessing.get_context("fork").Process
    with exclusive_use(free):  # by the thread that forks
        held, done = threading.Event(), threading.Event()

        def hold():
            with exclusive_use(running):
                held.set()
                done.wait(60)

        other = threading.Thread(target=hold)
        other.start()
        held.wait(60)
        said = []
        try:
            for bridge in (running, free):
                child = forked(target=said_by_a_child, args=(bridge, sender))
                child.start()
                said.append(receiver.recv() if receiver.poll(60) else "nothing")
                child.kill()
                child.join()
        finally:
            done.set()
            other.join()
    assert re.search(r"forked while another thread ran the model.*spawn", said[0])
    assert said[1] == "it would run"


@pytest.mark.usefixtures("many_switches")
@pytest.mark.filterwarnings("ignore:TransformerBridgeConfig is already bound")
def test_threads_on_one_model_get_what_each_would_alone():
    alone = tiny_bridge("llama")
    expected = {(name, i): CALLS[name](alone, TEXTS[i]) for name, i in WORK}
    bridge = tiny_bridge("llama")  # never run before: the checks of the model race too
    other = copy.copy(bridge)  # around the same model

    def work(thread):
        mine = WORK[thread:] + WORK[:thread]
        on = other if thread % 2 else bridge
        return {(name, i): CALLS[name](on, TEXTS[i]) for name, i in mine}

    for found in in_threads(work):
        for key, values in expected.items():
            torch.testing.assert_close(found[key], values, rtol=0, atol=0, equal_nan=True)


def test_a_callback_may_call_the_library_again():
    bridge = tiny_bridge("llama")
    (text, _) = TEXTS
    expected = li.logit_lens(bridge, text).entropy
    read = []

    def work(_thread):
        li.generate(
            bridge,
            text,
            max_new_tokens=2,
            callback=lambda _step: read.append(li.logit_lens(bridge, text).entropy),
        )

    in_threads(work)
    assert len(read) == 2 * N_THREADS
    for values in read:
        torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_are_as_before_wherever_a_call_ends(enabled):
    """An interrupt as `no_grad` is entered skips its exit."""

    @exclusive.exclusive
    def interrupted(bridge: TransformerBridge) -> None:
        torch.no_grad().__enter__()
        raise KeyboardInterrupt

    with torch.set_grad_enabled(enabled):
        with pytest.raises(KeyboardInterrupt):
            interrupted(shared_bridge("llama"))
        assert torch.is_grad_enabled() == enabled


def test_bridges_of_other_models_do_not_wait_for_each_other():
    first, second = tiny_bridge("llama"), tiny_bridge("llama")
    with exclusive_use(first), ThreadPoolExecutor(1) as pool:
        pool.submit(li.logit_lens, second, TEXTS[0]).result(timeout=60)


def test_a_lock_goes_with_its_model():
    bridge = tiny_bridge("llama")
    with exclusive_use(bridge):
        pass
    model = weakref.ref(bridge.original_model)
    del bridge
    gc.collect()
    assert model() is None
    assert all(known() is not None for known in exclusive._locks.keyrefs())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_device_without_values_is_refused(call):
    bridge = shared_bridge("llama")  # made outside
    with torch.device("meta"), pytest.raises(ValueError, match="default device is 'meta'"):
        call(bridge, TEXTS[0])


def test_every_public_function_of_a_model_holds_its_lock():
    package, checked = ROOT / "lens_interventions", []
    stub = (package / "__init__.pyi").read_text()
    for module, name in re.findall(r"^from \.([\w.]+) import (\w+) as", stub, re.MULTILINE):
        file = package / f"{module.replace('.', '/')}.py"
        if not file.exists() or name in ("explore", "chat_tokens"):
            # A server, which holds it for each request; and what reads the tokenizer alone.
            continue
        for node in ast.parse(file.read_text()).body:
            is_it = isinstance(node, ast.FunctionDef) and node.name == name
            if is_it and "bridge" in [argument.arg for argument in node.args.args]:
                assert "exclusive" in map(ast.unparse, node.decorator_list), name
                checked.append(name)
    assert len(checked) > 12
