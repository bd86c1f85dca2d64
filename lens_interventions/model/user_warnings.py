"""Warnings that point at the line of the user's from which the library was called."""

import contextlib
import os
import sys
import warnings
from pathlib import Path

import torch
import tqdm

# Between the user's line and the library's are decorators, context managers and progress bars.
_FOLDERS = (Path(__file__).parents[1], Path(torch.__file__).parent, Path(tqdm.__file__).parent)
_NOT_THE_USERS = (contextlib.__file__, *(f"{folder}{os.sep}" for folder in _FOLDERS))


def warn_user(message: str) -> None:
    """Warn at the nearest line that is the user's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
