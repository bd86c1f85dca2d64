"""The sources that a patch is run with, to see which of them a model reads."""

from collections.abc import Sequence

from ..learned_write import LearnedWrite
from ..patch import NextTokenPatch
from ..sources import SourceFunction


def compared_sources(
    patch: NextTokenPatch, asked: Sequence[str | SourceFunction] | None
) -> Sequence[str | SourceFunction]:
    """Those that are asked for; by default the true token and controls.

    A learned write is for a single source, which is its own default.
    """
    if asked is not None:
        return asked
    if isinstance(patch.mode, LearnedWrite):
        return (patch.mode.source,)
    return ("true", "current", "shuffled", "random")
