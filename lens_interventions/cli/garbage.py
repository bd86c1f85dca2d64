"""Garbage collection, kept away from the objects that stay.

Importing torch and transformers and loading a model make a million objects, which all stay until
the command ends. The collector would look through all of them, again and again: for half a second
of the embedded model's first answer, and for another second when the interpreter ends.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Import and load without garbage collection, which passes over what is there by then."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def everything_collected_after() -> Iterator[None]:
    """At the end, collect as usual again, in case the process goes on."""
    try:
        yield
    finally:
        gc.unfreeze()


def exit_without_collection() -> None:
    """When the interpreter ends, collect nothing, since the memory is given back anyway."""
    atexit.register(gc.freeze)
