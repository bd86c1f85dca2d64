"""What a measurement was asked for, as JSON values by which a later process knows it again."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def settings_key(value: object) -> Any:
    """JSON values that are the same in another process, and others if the value is another.

    Tensors count by their contents, functions by their name, their code and the values of their
    module that they read, other objects by their type and what they hold. Of a function that
    another one calls only the name counts.

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
        case type():
            return f"{value.__module__}.{value.__qualname__}"
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
        held: Mapping[str, object] = value.state_dict()
    elif dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        held = vars(value)
    else:
        raise _unknown(repr(value))
    return [f"{type(value).__module__}.{type(value).__qualname__}", settings_key(held)]


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
    parts = [name, source, None if inspect.ismodule(held) else settings_key(held)]
    inner = inspect.unwrap(function)
    if hasattr(inner, "__code__"):  # what is built in is known by its name
        # Hashed, because 1, 1.0 and True are equal as JSON values.
        said = [_code(inner.__code__), settings_key([inner.__defaults__, inner.__kwdefaults__])]
        parts += [hashlib.sha256(json.dumps(said).encode()).hexdigest(), _globals(name, inner)]
    return parts


def _code(code: CodeType) -> list[Any]:
    constants = [
        _code(each) if isinstance(each, CodeType) else settings_key(each) for each in code.co_consts
    ]
    return [code.co_code.hex(), constants, *code.co_names]


def _globals(name: str, function: Any) -> list[Any]:
    """Names and keys of the values that a function reads of its module."""
    read = {
        each: function.__globals__[each]
        for each in sorted(_names(function.__code__) & set(function.__globals__))
    }
    try:
        return [
            [each, settings_key(value)]
            for each, value in read.items()
            if not (inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value))
        ]
    except RecursionError as error:
        raise _unknown(name) from error


def _names(code: CodeType) -> set[str]:
    """The names of globals and attributes in a code, including the functions within it."""
    nested = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*nested)


def _unknown(name: str) -> ValueError:
    return ValueError(
        f"a file of sums could not know {name} again: give a function that is defined at the top "
        "of a module, or a dataclass, or measure without out"
    )
