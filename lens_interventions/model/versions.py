"""The versions of the packages that run a model."""

import importlib.metadata

_PACKAGES = ("torch", "transformers", "transformer_lens")


def running_versions() -> dict[str, str]:
    """The version of each package that decides how a model runs, by its name."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
