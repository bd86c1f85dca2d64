"""The sources that a patch is run with, to see which of them a model reads."""

from collections.abc import Sequence

from ..learned_write import LearnedWrite
from ..names import function_names
from ..patch import NextTokenPatch, require_patch
from ..pieces import refuse_prompt_patches
from ..sources import SourceFunction, source_names


def compared_sources(
    patch: NextTokenPatch, asked: Sequence[str | SourceFunction] | None
) -> tuple[Sequence[str | SourceFunction], tuple[str, ...]]:
    """Those that are asked for, and their names; by default the true token and controls.

    A learned write is for a single source, which is its own default.

    Raises `TypeError` for anything but one patch; `ValueError` for one with a window or
    `positions="generated"`, and for an unknown source.
    """
    require_patch(patch)
    if patch.window is not None:
        raise ValueError(f"the patch has a window of {patch.window}; give one without")
    refuse_prompt_patches([patch])
    if asked is not None:
        sources = asked
    elif isinstance(patch.mode, LearnedWrite):
        sources = (patch.mode.source,)
    else:
        sources = ("true", "current", "shuffled", "random")
    return sources, function_names("sources", sources, source_names())
