"""How annotations are checked while the tests run: an int is a float, as PEP 484 has it."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))
_made: dict[tuple[str, ...], Callable[..., Any]] = {}


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
