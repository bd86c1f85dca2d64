"""The directory in which the library keeps converted models and fitted lenses."""

import os
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "LENS_INTERVENTIONS_CACHE"


def cache_directory() -> Path:
    """`$LENS_INTERVENTIONS_CACHE`, or else the user's cache directory for this package."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return user_cache_path("lens_interventions", appauthor=False)
