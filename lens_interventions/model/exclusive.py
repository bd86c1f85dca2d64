"""One thread at a time on a model.

A run puts hooks on the bridge or takes components out of it, which would affect every other thread
that runs the same model. So each function that runs a model holds the model's lock until it
returns.
"""

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from .kinds import ReadableModel, inner_model, require_kind
from .restoration import begin_call, call_is_open, end_call

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

# By the model inside, so that several bridges of one model share a lock.
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making_one = threading.Lock()
# Models of a forked process that another thread was running, and will never let go.
_stuck: WeakSet[nn.Module] = WeakSet()


def _after_fork() -> None:
    """Of all threads, only the one that forked exists in the child."""
    global _making_one
    _making_one = threading.Lock()
    for model, lock in list(_locks.items()):
        if lock.acquire(blocking=False):
            lock.release()
        else:
            _stuck.add(model)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def exclusive_use(bridge: ReadableModel) -> Iterator[None]:
    """Hold a model's lock: other threads wait, and this thread may enter again.

    Raises `ValueError` under `torch.device("meta")`, where no model can run, and `RuntimeError` if
    the process was forked while another thread ran the model.
    """
    model = inner_model(bridge)
    if model in _stuck:
        raise RuntimeError(
            "this process was forked while another thread ran the model, whose copy here is stuck "
            'in that run: load a model in this process, or start it by "spawn"'
        )
    with _making_one:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        if torch.empty(0).is_meta:
            raise ValueError(
                "the default device is 'meta', whose tensors have no values: leave "
                'torch.device("meta")'
            )
        yield


def exclusive(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """A decorator that makes a function hold the lock of its argument `bridge` while it runs.

    What the function, or one that it calls, has changed for a while is as before when it ends.

    The function also raises `TypeError` for a model of another kind than its annotation asks for,
    because all public functions that run a model pass here first.
    """
    parameters = inspect.signature(function).parameters
    place, kind = list(parameters).index("bridge"), parameters["bridge"].annotation

    @functools.wraps(function)
    def alone(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        bridge: Any = kwargs.get("bridge", args[place] if place < len(args) else None)
        require_kind(bridge, kind, function.__name__)
        with exclusive_use(bridge):
            gradients, outermost = torch.is_grad_enabled(), not call_is_open()
            try:
                if outermost:
                    begin_call()
                return function(*args, **kwargs)
            finally:
                if outermost:
                    end_call()
                # An interrupt as torch enters `no_grad` leaves them off.
                torch.set_grad_enabled(gradients)

    return alone
