"""Answers to names that arguments have in TransformerLens or transformers, but not here."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def instead_of(**elsewhere: str) -> Callable[..., Any]:
    """A decorator that makes a function answer names of arguments that it does not have.

    `elsewhere` gives for each such name what to write instead. If the name is used, the function
    raises `TypeError` with these words.
    """

    def decorate(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
        @functools.wraps(function)
        def hinted(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
            for name in elsewhere.keys() & kwargs:
                raise TypeError(
                    f"{function.__name__} has no argument {name!r}: write {elsewhere[name]}"
                )
            return function(*args, **kwargs)

        return hinted

    return decorate
