"""How annotations are checked while the tests run: an int is a float, as PEP 484 has it."""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

_beartype = beartype(
    conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError)
)
_made: dict[tuple[str, ...], Callable[..., Any]] = {}
_with_shapes = jaxtyping.jaxtyped


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with checks of its annotations.

    jaxtyping makes two of every function: one that it calls first, with the parameters alone, and
    one for the result, which has the parameters again. They are not checked a second time: in small
    models checks take a good part of the time. What the dimensions are called is kept in between.

    Neither does anything but return, so a function within a function, which is made at every call
    of the outer one, gets the checks that were made for it the first time.
    """
    result = function.__annotations__.get("return", Any)
    if result is not Any:
        function.__annotations__ = {"return": result}
    code, annotations = function.__code__, function.__annotations__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    key = (function.__module__, function.__qualname__, *names, repr(annotations))
    if key not in _made:
        _made[key] = _beartype(function)
    return _made[key]


def jaxtyped(function: Any = None, **options: Any) -> Any:
    """`jaxtyping.jaxtyped` for what needs it, and beartype in or without its context for the rest.

    jaxtyping binds the arguments at every call, for dimensions such as `"{n}"`, and calls two
    functions that only check. Where no dimension is written so, beartype does all in one call, and
    the context remembers what the dimensions are called. Where no annotation has a shape it is not
    needed either. Such a function within a function is not checked at all: it is made at every call
    of the outer one, and its checks with it.
    """
    if function is None:
        return functools.partial(jaxtyped, **options)
    if not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return _with_shapes(function, **options)
    needed = _needed.get(function.__code__)
    if needed is None:
        needed = _needed[function.__code__] = _checks_needed(function)
    if needed == "all of jaxtyping":
        return _with_shapes(function, **options)
    if needed == "none":
        return function
    # Made at the first call: most tests call few functions, and collection waits for all of them.
    with_checks = functools.cache(lambda: _beartype(function))

    @functools.wraps(function)
    def in_context(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        with _with_shapes("context"):
            return with_checks()(*args, **kwargs)

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        called = function if jaxtyping.config.jaxtyping_disable else with_checks()
        return called(*args, **kwargs)

    return in_context if needed == "a context" else alone


# By the code of a function: one within another is made again at every call of that.
_needed: dict[CodeType, str] = {}


def _checks_needed(function: Any) -> str:
    parts = [part for hint in function.__annotations__.values() for part in _parts(hint)]
    shapes = [part.dim_str for part in parts if _is_array(part)]
    nested = "<locals>" in function.__qualname__
    if any(isinstance(part, str | ForwardRef) for part in parts):  # yet to be looked up
        return "all of jaxtyping"
    if any("{" in shape for shape in shapes) or (shapes and nested):
        return "all of jaxtyping"
    if nested:
        return "none"
    return "a context" if shapes else "beartype"


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def _is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray)
