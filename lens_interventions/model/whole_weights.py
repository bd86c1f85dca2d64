"""Checkpoints that lack weights of their model.

transformers draws them at random, another time at each load. It says so in a report that
TransformerLens silences.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from transformers import PreTrainedModel

from .shared_settings import SharedSetting

_SHOWN = 3  # names in a message

_from_pretrained: Any = PreTrainedModel.__dict__["from_pretrained"]
_required: ContextVar[bool] = ContextVar("whole weights are required", default=False)


def _whole(cls: type[PreTrainedModel], *args: Any, **kwargs: Any) -> Any:
    load = _from_pretrained.__get__(None, cls)
    if not _required.get() or "output_loading_info" in kwargs:
        return load(*args, **kwargs)
    model, info = load(*args, output_loading_info=True, **kwargs)
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"the checkpoint has no {', '.join(missing[:_SHOWN])}{more} of {cls.__name__}, which "
            "transformers would draw at random: give the checkpoint of a whole language model. If "
            "random weights are right here, load it with transformers and pass hf_model="
        )
    return model


def _put(method: Any) -> None:
    PreTrainedModel.from_pretrained = method  # type: ignore[method-assign]


# Other threads, in which nothing is required, load as ever.
_checked = SharedSetting(lambda: _from_pretrained, _put, other=classmethod(_whole))


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
