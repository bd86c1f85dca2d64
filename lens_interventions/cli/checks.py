"""Checks of a command that need no loaded model.

Wrong usage shows in the arguments, together with the config of the model that they name. It raises
`typer.BadParameter`, which ends a command with status 2; every other error ends it with status 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FIGURES = (".html", ".png", ".svg", ".pdf")

Value = TypeVar("Value", str, list[str], None)


@contextmanager
def usage() -> Iterator[None]:
    """Turn the library's errors about the user's input into wrong usage."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


def one_of(names: Sequence[str]) -> Callable[[Value], Value]:
    """A callback for an option whose values must be among `names`, and no two alike."""

    def check(value: Value) -> Value:
        given: list[str] = [value] if isinstance(value, str) else value or []
        for name in given:
            if name not in names:
                raise typer.BadParameter(f"{name!r} is not one of {', '.join(names)}")
            if given.count(name) > 1:
                raise typer.BadParameter(f"{name!r} is given twice")
        return value

    return check


def finite(value: float | None) -> float | None:
    """A callback that refuses nan and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def require_output(path: Path | None, suffixes: Sequence[str], *read: Path | None) -> None:
    """Refuse a file whose name has none of `suffixes`, or that cannot be written.

    So is one of the files that are `read`, since it would be lost. Images need more than the
    library itself, which is checked here too.
    """
    if path is None:
        return
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise typer.BadParameter(f"cannot write {path.name!r}: use one of {', '.join(suffixes)}")
    if any(each is not None and each.resolve() == path.resolve() for each in read):
        raise typer.BadParameter(f"{path.name} is the file that is read: name another to write")
    from .._files import require_writable
    from ..drawing.export import require_image_writer

    require_writable(path)
    if suffix in (".png", ".svg", ".pdf"):
        require_image_writer(suffix)


def require_blocks(model: str | None, layers: Sequence[int]) -> None:
    """Refuse a layer that is given twice, or one too high for the model, if its config says so."""
    from ..model import config, points

    if len(set(layers)) < len(layers):
        raise typer.BadParameter(f"--layer names a block twice: {', '.join(map(str, layers))}")
    n_layers = config.known_blocks(model)
    if n_layers is not None:
        with usage():
            points.require_blocks(layers, n_layers)


def require_context(bridge: "TransformerBridge", context: int | None) -> None:
    """Refuse pieces that are longer than what the model can read."""
    limit = int(bridge.cfg.n_ctx)
    if context is not None and context > limit:
        raise typer.BadParameter(f"--context must be from 2 to the model's {limit}, got {context}")
