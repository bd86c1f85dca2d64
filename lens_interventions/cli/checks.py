"""What can be said of a command before its model is loaded.

Wrong usage is what the arguments alone show, with the config of the model that they name. It raises
`typer.BadParameter`, which ends a command with status 2; every other error ends it with status 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import typer

FIGURES = (".html", ".png", ".svg")

Value = TypeVar("Value", str, list[str], None)


@contextmanager
def usage() -> Iterator[None]:
    """Errors of what the user typed, raised by the library, become wrong usage."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def one_of(names: Sequence[str]) -> Callable[[Value], Value]:
    """A callback for an option that names one of some things, or several of them."""

    def check(value: Value) -> Value:
        given: list[str] = [value] if isinstance(value, str) else value or []
        for name in given:
            if name not in names:
                raise typer.BadParameter(f"{name!r} is not one of {', '.join(names)}")
        return value

    return check


def finite(value: float | None) -> float | None:
    """A callback for an option that is a number: nan and infinity are refused."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def require_output(path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuse a file that is not named as one of `suffixes`, or that cannot be written.

    Images need more than the library itself; that is asked for here too.
    """
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise typer.BadParameter(f"cannot write {path.name!r}: use one of {', '.join(suffixes)}")
    from .._files import require_writable
    from ..drawing.export import require_image_writer

    require_writable(path)
    if suffix in (".png", ".svg"):
        require_image_writer(suffix)


def require_blocks(model: str | None, layers: Sequence[int]) -> None:
    """Refuse layers that the model does not have, where its config says so."""
    from ..model import config, points

    n_layers = config.known_blocks(model)
    if n_layers is not None:
        with usage():
            points.require_blocks(layers, n_layers)
