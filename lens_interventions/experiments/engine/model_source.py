"""The model of a run: a bridge in this process, or a way to load it in others."""

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from ...model.exclusive import exclusive_use
from ...model.fingerprint import config_hash, weights_sha256
from ...model.kinds import ReadableModel, require_kind, weight_dtype
from ...model.load import load_model
from ...model.user_hooks import has_temporary_hooks
from .input_files import Version, file_version

# Threads that start together load the model only once.
_loading = threading.Lock()

Model = TransformerBridge | str | os.PathLike[str] | Callable[[], TransformerBridge] | None


@dataclass(frozen=True)
class ModelSource:
    """The source of the model for a process. It can go to another process unless it is a bridge.

    Attributes:
        model: a bridge; a name or directory for `load_model`, or None for the embedded model; or
            a function without arguments, defined in a module, that returns a bridge. Calls are
            cached by equality of the function, so a new lambda or `functools.partial` loads the
            model again.
        files: the versions of a local model's files; by default as they are now. A source that is
            made after they have changed loads the model again.
    """

    model: Model
    files: tuple[Version, ...] | None = None

    def __post_init__(self) -> None:
        if self.files is None:
            object.__setattr__(self, "files", _files(self.model))

    def bridge(self) -> TransformerBridge:
        """The bridge, loaded once per process.

        Raises `ValueError` for a bridge with hooks on it; `TypeError` for a model that is not a
        bridge. Errors of loading the model are passed on.
        """
        # A model can be called too.
        model: Any = self.model
        with _loading:
            found: Any = model if isinstance(model, ReadableModel) else _loaded(model, self.files)
        require_kind(found, TransformerBridge, "an experiment")
        with exclusive_use(found):  # a run of another thread has hooks on meanwhile
            if any(map(has_temporary_hooks, found.hook_points())):
                raise ValueError(
                    "there are hooks on the bridge, which the settings of a run cannot record: "
                    "take them off (bridge.reset_hooks())"
                )
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.model, TransformerBridge):
            raise TypeError(
                "a bridge cannot be sent to another process: give the experiment the model's "
                "name or directory, or a function in a module that loads it"
            )
        return ModelSource, (self.model, self.files)


@dataclass(frozen=True)
class NamedModel:
    """A call of `load_model` for any process that needs the model.

    Attributes:
        name: a name or directory for `load_model`, or None for the embedded model.
        device: such as "cpu"; None leaves the choice to TransformerLens.
        dtype: the dtype of the weights, such as "float32".
        revision: the revision of a name on the hub; None for its main branch.
    """

    name: str | None
    device: str | None
    dtype: str
    revision: str | None

    def __call__(self) -> TransformerBridge:
        """Load the bridge."""
        dtype = getattr(torch, self.dtype)
        return load_model(self.name, device=self.device, dtype=dtype, revision=self.revision)


def model_header(bridge: TransformerBridge) -> dict[str, Any]:
    """What the settings of a run say of its model, including hashes of weights and config."""
    return {
        "name": str(bridge.cfg.model_name),
        "architecture": str(bridge.cfg.architecture),
        "n_layers": int(bridge.cfg.n_layers),
        "d_model": int(bridge.cfg.d_model),
        "d_vocab": int(bridge.cfg.d_vocab),
        "dtype": str(weight_dtype(bridge)).removeprefix("torch."),
        "device": bridge.W_U.device.type,
        "compatibility_mode": bool(bridge.compatibility_mode),
        "weights_sha256": weights_sha256(bridge),
        "config_hash": config_hash(bridge),
    }


@functools.lru_cache(maxsize=1)
def _loaded(
    model: str | os.PathLike[str] | Callable[[], TransformerBridge] | None,
    _files: tuple[Version, ...] | None,
) -> TransformerBridge:
    return model() if callable(model) else load_model(model)


def _files(model: object) -> tuple[Version, ...]:
    """The versions of a local model's files."""
    if not isinstance(model, str | os.PathLike):
        return ()
    path = Path(os.path.expanduser(model))  # noqa: PTH111, as Path's raises for unknown users
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple(file_version(str(file)) for file in files if file.is_file())
