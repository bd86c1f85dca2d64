"""How annotations are checked while the tests run: an int is a float, as PEP 484 has it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
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
    """`jaxtyping.jaxtyped` where an annotation has a shape, and beartype alone where none has.

    jaxtyping binds the arguments at every call, to name dimensions by them. That takes fifty times
    as long as the checks of a function that has no arrays. Such a function within a function is not
    checked at all: it is made at every call of the outer one, and its checks with it.
    """
    if function is None:
        return functools.partial(jaxtyped, **options)
    if not _is_simple(function):
        return _with_shapes(function, **options)
    if "<locals>" in function.__qualname__:
        return function
    # Made at the first call: most tests call few functions, and collection waits for all of them.
    with_checks = functools.cache(lambda: _beartype(function))

    @functools.wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        called = function if jaxtyping.config.jaxtyping_disable else with_checks()
        return called(*args, **kwargs)

    return either


def _is_simple(function: Any) -> bool:
    """Whether it is a plain function, no annotation has a shape and none is yet to be looked up."""
    return (
        inspect.isfunction(function)
        and not inspect.isgeneratorfunction(function)
        and not any(map(_has_shape_or_name, function.__annotations__.values()))
    )


def _has_shape_or_name(annotation: Any) -> bool:
    if isinstance(annotation, str | ForwardRef):
        return True
    if get_origin(annotation) is Literal:
        return False
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shape_or_name, get_args(annotation)))
