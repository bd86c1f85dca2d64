"""A result in a line of text, as an interactive Python or a notebook shows it."""

import dataclasses
import reprlib
from typing import Any


def summary(result: Any) -> str:
    """A dataclass with its fields, arrays and tables by their shape, and long values cut.

    It serves as a `__repr__`: `EffectMap(layers=(0, 1, 2), effect=[3, 9], ...)`.
    """
    fields = (field.name for field in dataclasses.fields(result) if field.repr)
    values = (f"{name}={_short.repr(getattr(result, name))}" for name in fields)
    return f"{type(result).__name__}({', '.join(values)})"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxother = 80  # characters of what is neither a number nor a container

    def repr1(self, x: Any, level: int) -> str:
        """The shape of what has axes; other values as `reprlib` cuts them."""
        shape = getattr(x, "shape", None)
        return str(list(shape)) if shape else super().repr1(x, level)


_short = _Short()
