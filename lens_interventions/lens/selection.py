"""A trajectory at some of its prompts, or at some of its columns."""

from dataclasses import replace
from typing import Any, TypeVar

from jaxtyping import Bool, Int
from torch import Tensor

from ..drawing.labels import counted
from ..model.argument_types import require_whole_numbers
from .trajectory_fields import TrajectoryFields

Read = TypeVar("Read", bound=TrajectoryFields)


def require_prompt(number: int, n_prompts: int) -> None:
    """Raise `ValueError` unless a batch has such a prompt, counted from either end.

    Raises `TypeError` for what is not a whole number.
    """
    require_whole_numbers(batch=number)
    if not -n_prompts <= number < n_prompts:
        raise ValueError(
            f"prompt {number} does not exist: there {'is' if n_prompts == 1 else 'are'} "
            f"{counted(n_prompts, 'prompt')}, from 0 on"
        )


def of_prompts(read: Read, prompts: list[int] | Int[Tensor, " row"]) -> Read:
    """The same at these prompts, in this order."""
    return _at(read, prompts)


def at_columns(read: Read, columns: slice | list[int] | Bool[Tensor, " pos"]) -> Read:
    """The same at these columns of every prompt, in this order."""
    return _at(read, slice(None), columns)


def _at(read: Read, *place: Any) -> Read:
    """The same at a place on the axes `batch` and `pos`, which statistics have after `point`."""
    chosen: dict[str, Any] = {
        name: value[place] if value.ndim == 2 else value[:, *place]
        for name, value in read.tensors().items()
    }
    return replace(read, **chosen)
