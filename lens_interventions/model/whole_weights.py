"""Checkpoints that lack weights of their model.

transformers draws them at random, another time at each load. It says so in a report that
TransformerLens silences.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from .shared_settings import SharedSetting

_SHOWN = 3  # names in a message

_required: ContextVar[bool] = ContextVar("whole weights are required", default=False)


class _Whole:
    """`from_pretrained` of any class, which refuses what lacks weights where that is required."""

    def __init__(self, found: Any) -> None:
        """`found` is the method that it stands for."""
        self.found = found

    def __get__(self, _model: object, cls: type[PreTrainedModel]) -> Callable[..., Any]:
        return partial(_load, self.found.__get__(None, cls), cls)


def _load(load: Callable[..., Any], cls: type[PreTrainedModel], *args: Any, **kwargs: Any) -> Any:
    if not _required.get() or "output_loading_info" in kwargs:
        return load(*args, **kwargs)
    # A part that is loaded on the way may get its weights from the whole.
    inside = _required.set(False)
    try:
        model, info = load(*args, output_loading_info=True, **kwargs)
    finally:
        _required.reset(inside)
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"the checkpoint has no {', '.join(missing[:_SHOWN])}{more} of {cls.__name__}, which "
            "transformers would draw at random: give the checkpoint of the whole model. If random "
            "weights are right here, load it with transformers and pass hf_model="
        )
    return model


def _find() -> Any:
    return PreTrainedModel.__dict__["from_pretrained"]


def _put(method: Any) -> None:
    PreTrainedModel.from_pretrained = method or _Whole(_find())  # type: ignore[assignment, method-assign]


# Other threads, in which nothing is required, load as ever.
_checked = SharedSetting(_find, _put, other=None)


@contextmanager
def whole_weights() -> Iterator[None]:
    """Inside, in this thread, a model that transformers loads must have all its weights.

    Otherwise `ValueError` is raised.
    """
    before = _required.set(True)
    try:
        with _checked.changed():
            yield
    finally:
        _required.reset(before)
