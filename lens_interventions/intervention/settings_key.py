"""What a measurement was asked for, as JSON values by which a later process knows it again."""

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_READS_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
# What every module of torch has for its own use; parameters, buffers and parts count.
_OF_TORCH = {*vars(nn.Module())} - {"_parameters", "_buffers", "_modules"}


def settings_key(value: object) -> Any:
    """JSON values that are the same in another process, and others if the value is another.

    Tensors count by their contents, functions by their name, their code and the values of their
    module that they read, other objects by their type, what they hold and, if they can be called,
    the code of the call. Of a function that another one calls only the name counts.

    Raises `ValueError` for a function without a name of its own, such as a lambda, since what it
    does may depend on variables around it, and for objects that do not show what they hold.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case Path() | torch.dtype() | torch.device() | complex() | slice() | EllipsisType():
            return str(value)
        case re.Pattern():
            return [str(value.pattern), value.flags]
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case np.ndarray() if value.dtype.kind in "OSU":
            return settings_key(value.tolist())
        case np.ndarray() | Tensor():
            return _contents(torch.as_tensor(value))
        case functools.partial():
            return [settings_key(each) for each in (value.func, value.args, value.keywords)]
        case Mapping():
            return [[settings_key(key), settings_key(each)] for key, each in value.items()]
        case Sequence() | set() | frozenset():
            parts = map(settings_key, value)
            return sorted(parts, key=str) if isinstance(value, (set, frozenset)) else list(parts)
    if inspect.isroutine(value):
        return _function(value)
    if isinstance(value, nn.Module):
        held: Mapping[str, object] = {
            name: each for name, each in vars(value).items() if name not in _OF_TORCH
        }
    elif dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        held = vars(value)
    else:
        raise _unknown(repr(value))
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    called = "forward" if isinstance(value, nn.Module) else "__call__"
    return [name, settings_key(held), *_body(name, getattr(type(value), called, None))]


def _contents(tensor: Tensor) -> list[str]:
    bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    said = f"{tensor.dtype} {tuple(tensor.shape)}"
    return [said, hashlib.sha256(bits.numpy().tobytes()).hexdigest()]


def _function(function: Any) -> list[Any]:
    name = f"{function.__module__}.{function.__qualname__}"
    if "<" in name:  # <lambda>, or a function in the <locals> of another
        raise _unknown(name)
    try:
        source = inspect.getsource(function)  # with its decorators
    except (OSError, TypeError):  # built in, or typed at a prompt
        source = ""
    held = getattr(function, "__self__", None)
    own = None if inspect.ismodule(held) else settings_key(held)
    return [name, source, own, *_body(name, function)]


def _body(name: str, function: Any) -> list[str]:
    """A hash of what a function does; none if it is built in, and known by its name."""
    if function is None or not hasattr(inner := inspect.unwrap(function), "__code__"):
        return []
    said = [
        _code(inner.__code__),
        settings_key([inner.__defaults__, inner.__kwdefaults__]),
        _globals(name, inner),
    ]
    # Hashed, because 1, 1.0 and True are equal as JSON values, and nan is not equal to itself.
    return [hashlib.sha256(json.dumps(said).encode()).hexdigest()]


def _code(code: CodeType) -> list[Any]:
    constants = [
        _code(each) if isinstance(each, CodeType) else settings_key(each) for each in code.co_consts
    ]
    return [code.co_code.hex(), constants, *code.co_names]


def _globals(name: str, function: Any) -> list[Any]:
    """Names and keys of the values that a function reads of its module."""
    found = []
    for each in sorted(_names(function.__code__) & set(function.__globals__)):
        value = function.__globals__[each]
        # A logger changes no number.
        if inspect.ismodule(value) or inspect.isclass(value) or isinstance(value, logging.Logger):
            continue
        if inspect.isroutine(value):
            continue
        try:
            found.append([each, settings_key(value)])
        except (AttributeError, RecursionError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"a file of sums could not know {name} again, because it reads {each}, a "
                f"{type(value).__name__} whose contents cannot be recorded: let it read numbers, "
                "texts, arrays or tensors, or measure without out"
            ) from error
    return found


def _names(code: CodeType) -> set[str]:
    """The names of the globals that a code reads, including the functions within it."""
    nested = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    own = {each.argval for each in dis.get_instructions(code) if each.opname in _READS_GLOBALS}
    return own.union(*nested)


def _unknown(name: str) -> ValueError:
    return ValueError(
        f"a file of sums could not know {name} again: give a function that is defined at the top "
        "of a module, or a dataclass, or measure without out"
    )
