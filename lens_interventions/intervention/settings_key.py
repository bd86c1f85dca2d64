"""The settings of a measurement, as JSON values that a later process knows again."""

import dataclasses
import dis
import functools
import hashlib
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, EllipsisType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from ..model.fingerprint import model_hash

_READS_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
# What every module of torch has for its own use.
_OF_TORCH = {*vars(nn.Module())}


def settings_key(value: object) -> Any:
    """JSON values that are the same in another process, and others if the value is another.

    Tensors count by their contents, functions by their name, their code, the values of their module
    that they read, and the numbers, texts, tensors and functions that their decorators hold; a
    bridge by its weights and config, other modules of torch by their tensors, the numbers and texts
    that they hold, and the code of `forward`; other objects by their type, what they hold and, if
    they can be called, the code of the call. What an object's class holds for it counts too. Of a
    function or module that another one calls only the name counts.

    Raises `ValueError` for a function without a name of its own, such as a lambda, since what it
    does may depend on variables around it, for modules with hooks on them, and for objects that do
    not show what they hold.
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
    held: Mapping[str, object]
    if isinstance(value, TransformerBridge):
        return ["bridge", model_hash(value)]
    if isinstance(value, nn.Module):
        held = _module(value)
    elif dataclasses.is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        held = vars(value)
    else:
        raise _unknown(repr(value))
    name = settings_key(type(value))
    key = [name, settings_key({**_of_class(type(value)), **held})]
    if not callable(value):
        return key
    called = "forward" if isinstance(value, nn.Module) else "__call__"
    return [*key, *_body(name, getattr(type(value), called))]


def _of_class(kind: type) -> dict[str, object]:
    """The plain values that a class and its bases hold for all objects, those of torch apart."""
    return {
        name: each
        for base in reversed(kind.__mro__)
        if base.__module__.partition(".")[0] != "torch"
        for name, each in vars(base).items()
        if not name.startswith("__") and _is_plain(each)
    }


def _module(module: nn.Module) -> dict[str, object]:
    """What a module of torch computes with, its parts included."""
    parts = dict(module.named_modules())
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts.values()):
        raise ValueError(
            f"a file of sums could not know a {type(module).__name__} with hooks on it again: take "
            "them off, or leave out the checkpoint"
        )
    plain = {
        name: {
            attribute: each
            for attribute, each in vars(part).items()
            if attribute not in _OF_TORCH and _is_plain(each)
        }
        for name, part in parts.items()
    }
    types = [[type(part), _of_class(type(part))] for part in parts.values()]
    tensors = {**module.state_dict(), **dict(module.named_buffers())}
    return {"tensors": tensors, "plain": plain, "parts": types, "training": module.training}


def _is_plain(value: object) -> bool:
    """Whether a value is a number, a text or a tensor, or a container of such values."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, np.generic, np.ndarray, Tensor, type(None)))


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
    inner, decorators = inspect.unwrap(function), list(_decorators(function))
    if not hasattr(inner, "__code__"):
        return []
    said = [
        _code(inner.__code__),
        settings_key([inner.__defaults__, inner.__kwdefaults__]),
        _globals(name, inner),
        [_held(each) for each in decorators],
    ]
    # Hashed, because 1, 1.0 and True are equal as JSON values, and nan is not equal to itself.
    return [hashlib.sha256(json.dumps(said).encode()).hexdigest()]


def _code(code: CodeType) -> list[Any]:
    constants = [
        _code(each) if isinstance(each, CodeType) else settings_key(each) for each in code.co_consts
    ]
    return [code.co_code.hex(), constants, *code.co_names]


def _decorators(function: Any) -> Iterator[Any]:
    """The functions that decorators have wrapped around another one, outermost first."""
    while hasattr(function, "__wrapped__"):
        if hasattr(function, "__code__"):
            yield function
        function = function.__wrapped__


def _held(function: Any, around: tuple[object, ...] = ()) -> list[Any]:
    """The code of a function, and the numbers, texts, tensors and functions that it holds.

    What else a decorator holds, such as a lock or the memory of a cache, changes no number.
    """
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    found: list[Any] = [_code(function.__code__)]
    for value in held:
        if _is_plain(value):
            found.append(settings_key(value))
        elif hasattr(value, "__code__") and value not in (*around, function):
            found.append([value.__qualname__, *_held(value, (*around, function))])
    return found


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
                "texts, arrays or tensors, or leave out the checkpoint"
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
        "of a module, or a dataclass, or leave out the checkpoint"
    )
