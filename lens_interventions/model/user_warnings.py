"""Warnings that point at the line of the user's from which the library was called."""

import sys
import warnings
from pathlib import Path

import torch

# Decorators of the library and of torch add frames to a call.
_NOT_THE_USERS = tuple(f"{Path(file).parent}/" for file in (Path(__file__).parent, torch.__file__))


def warn_user(message: str) -> None:
    """Warn at the nearest line outside the library and torch."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
