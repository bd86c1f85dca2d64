"""A model's config, read without the network and before the model is loaded."""

import os
from pathlib import Path

from ._names import gguf_file, local_directory
from .embedded import NAME
from .user_cache import cache_directory


def known_blocks(name: str | os.PathLike[str] | None) -> int | None:
    """How many blocks the model of `load_model(name)` has; None if only loading it would show that.

    Raises `FileNotFoundError` if a path has no model.
    """
    place: str | Path
    if name is None:
        directory = cache_directory() / NAME
        if not (directory / "config.json").is_file():  # not converted yet
            return None
        place = directory
    elif gguf_file(name):
        return None
    else:
        place = local_directory(name) or os.fspath(name)
    # Imported here, so that only commands that need it pay for it.
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):  # not in the local cache, or of code that comes with it
        return None
    return getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
