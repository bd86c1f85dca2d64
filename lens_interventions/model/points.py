"""Residual points: the places where a lens reads the residual stream.

A model of L blocks has L + 1 points between blocks: `0_pre` (the input: the token embedding, plus
the position if the model adds it), `1_pre` (the output of block 0) and so on, and `final_post`, the
output of the last block. `3_mid` lies inside block 3, after attention. The labels are
TransformerLens's (`ActivationCache.accumulated_resid`).
"""

import re
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from .argument_types import require_counts, whole_numbers

INPUT = "0_pre"
FINAL = "final_post"

PointSelection = slice | Sequence[int | str] | None

_NAMES = {"input": INPUT, "final": FINAL}  # what readers call the first and the last point
_HOOK_NAME = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|mid|post)")


def point_labels(n_layers: int, *, incl_mid: bool = False) -> list[str]:
    """All residual points of a model, in the order in which the stream passes them."""
    labels = []
    for layer in range(n_layers):
        labels.append(f"{layer}_pre")
        if incl_mid:
            labels.append(f"{layer}_mid")
    return [*labels, FINAL]


def layer_label(layer: int, n_layers: int) -> str:
    """The label of `r[layer]`: where block `layer` begins, or the last point for `n_layers`."""
    return FINAL if layer == n_layers else f"{layer}_pre"


def hook_name(label: str, n_layers: int) -> str:
    """TransformerLens's name of the hook at a residual point."""
    if label == FINAL:
        return f"blocks.{n_layers - 1}.hook_resid_post"
    layer, side = label.split("_")
    return f"blocks.{layer}.hook_resid_{side}"


def point_layer(label: str, n_layers: int) -> int:
    """The l of `r[l]`: the block that the point enters, or `n_layers` for the last point.

    Raises `ValueError` if the point lies inside a block.
    """
    if label == FINAL:
        return n_layers
    layer, side = label.split("_")
    if side == "mid":
        raise ValueError(f"{label} lies inside a block: lens maps exist between blocks only")
    return int(layer)


def require_blocks(layers: Sequence[int], n_layers: int) -> None:
    """Raise `ValueError` if a patch at `layers` does not fit a model of `n_layers` blocks."""
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ValueError(
                f"the model has blocks 0 to {n_layers - 1}, the patch asks for {layer}"
            )


def chosen_layers(layers: Iterable[int] | None, n_layers: int) -> tuple[int, ...]:
    """The blocks that a user chose of `n_layers`, each once, in their order; all for None.

    Raises `ValueError` if there are none, or the model does not have one; `TypeError` for anything
    but a list of whole numbers.
    """
    try:
        chosen = range(n_layers) if layers is None else whole_numbers(layers)
    except TypeError as error:
        raise TypeError(
            f"layers must be a list of whole numbers, such as [0, 2]; got {layers!r:.60}"
        ) from error
    if not chosen or min(chosen) < 0 or max(chosen) >= n_layers:
        raise ValueError(
            f"the model has blocks 0 to {n_layers - 1}, but layers are {list(chosen)}: give one or "
            "more of these"
        )
    return tuple(dict.fromkeys(chosen))


def select_points(
    n_layers: int,
    points: PointSelection = None,
    *,
    every: int = 1,
    include_input: bool = True,
    incl_mid: bool = False,
) -> tuple[str, ...]:
    """The residual points to read, in stream order.

    **Arguments:**

    - `n_layers`: how many blocks the model has.
    - `points`: labels or indices (l stands for `r[l]`; negative indices count from the end, so -1
        is the last point), or a slice over the indices. `"input"` and `"final"` are the first and
        the last point. So are names of their hooks: `blocks.3.hook_resid_pre`,
        `blocks.3.hook_resid_mid`, and `hook_resid_post` of the last block. All points by default.
    - `every`: keep every n-th of these points, and always the last.
    - `include_input`: keep `0_pre`.
    - `incl_mid`: add the points inside the kept blocks.

    **Returns:** labels such as `0_pre`, `1_pre` and `final_post`.

    Raises `ValueError` if a point is unknown or none is left, and `TypeError` if `points` is one
    point instead of a list, or a point or `every` is of another type.
    """
    require_counts(every=every)
    between = point_labels(n_layers)
    order = point_labels(n_layers, incl_mid=True)
    if isinstance(points, str) or not isinstance(points, Iterable | slice | None):
        raise TypeError(f"points must be a list of points or a slice; for one point: [{points!r}]")
    if points is None:
        chosen = list(between)
    elif isinstance(points, slice):
        chosen = between[points]
    else:
        chosen = [_label(point, between, order) for point in points]
    if not include_input:
        chosen = [label for label in chosen if label != INPUT]
    if not chosen:
        raise ValueError(f"no residual point is left of {points!r}; there are {between}")
    chosen = [label for label in order if label in chosen]
    kept = {*chosen[::every], chosen[-1]}
    if incl_mid:
        kept |= {label.replace("_pre", "_mid") for label in kept if label.endswith("_pre")}
    return tuple(label for label in order if label in kept)


def _label(point: int | str, between: list[str], order: list[str]) -> str:
    if not isinstance(point, str | SupportsIndex) or isinstance(point, bool):
        raise TypeError(
            f"a residual point is a label, such as {between[0]!r}, or a whole number; got "
            f"{point!r:.60}"
        )
    if isinstance(point, str):
        point = _NAMES.get(point, point)
        # What leaves any other block may be changed by a hook before it enters the next one.
        last = f"{len(between) - 2}_post"
        named = _HOOK_NAME.fullmatch(point)
        inside = f"{named[1]}_{named[2]}" if named else point
        if named and inside in (*order, last):
            return FINAL if inside == last else inside
        if point in order:
            return point
        after = re.fullmatch(r"(\d+)_post", inside)
        if after and int(after[1]) + 1 < len(between):
            raise ValueError(
                f"unknown residual point {point!r}: what leaves block {after[1]} is "
                f"{between[int(after[1]) + 1]!r}"
            )
        raise ValueError(
            f"unknown residual point {point!r}; points are {between}, and those inside a block, "
            f"such as {order[-2]!r}"
        )
    if not -len(between) <= point < len(between):
        raise ValueError(
            f"residual point {point} does not exist: the model has points 0 (the input) to "
            f"{len(between) - 1} (the output of the last block)"
        )
    return between[point]


def point_name(point: str) -> str:
    """The name of a residual point for readers: `0_pre` is `input`, `3_mid` is `3 mid`."""
    names = {label: name for name, label in _NAMES.items()}
    return names.get(point) or point.removesuffix("_pre").replace("_", " ")
