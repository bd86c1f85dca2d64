"""A user's hooks in two streams, which must change each position independently and alike.

From the patched block up, the rows of a run are not a text in order, but patched and clean copies
of positions, a chunk at a time, of several patches in one batch. A hook that changes each row only
by the contents of that row (an SAE, an ablated direction, a steering vector) acts there as it
would in a sampler's run. A trial on the first rows that a hook gets finds the others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ...model.hooks import Hook, HookFunction
from ...model.precision import at_least_float32, is_half
from ..patch import NextTokenPatch

# Points that have one row for each position.
_BY_ROW = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "attn.hook_z",
    "mlp.hook_pre",
    "mlp.hook_post",
)

# Products of another number of rows are rounded differently. A dependence on other rows that is
# smaller than this matters no more than that.
_TOLERANCE = {False: 1e-4, True: 2e-2}

_BEFORE_ALL_BLOCKS = "blocks.0.hook_resid_pre"

GivenHook = tuple[str | Callable[[str], bool], HookFunction]

_PAIRS = "fwd_hooks must be a list of pairs of a name and a function, [(name, fn)]"


def hooks_by_row(
    bridge: TransformerBridge,
    fwd_hooks: Sequence[GivenHook],
    length: int,
    patches: Sequence[NextTokenPatch | None],
) -> list[Hook]:
    """The hooks, each of which raises `ValueError` at its first call if it does not act by row.

    The text enters the run of two copies as the residual of a patch's lowest layer. A hook there
    would act twice, so it is put on the `hook_resid_post` of the block before, which is the same
    residual, after all others.

    **Arguments:**

    - `fwd_hooks`: pairs of a hook's name, or of a filter of names, and a function.
    - `length`: the length of the texts, so that a hook that acts only from some position on is
        found.
    - `patches`: those under which the texts are run.

    Raises `ValueError` for a name that the model does not have, a filter that fits none, or a point
    at which rows are not the second axis; `TypeError` for anything but a list of pairs.
    """
    if not isinstance(fwd_hooks, Iterable):
        raise TypeError(f"{_PAIRS}, got {fwd_hooks!r:.60}")
    hooks: list[Hook] = []
    entering: list[Hook] = []
    entered = {f"blocks.{patch.layers[0]}.hook_resid_pre" for patch in patches if patch}
    points = bridge.hook_dict
    for pair in fwd_hooks:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and callable(pair[1])):
            raise TypeError(f"{_PAIRS}, but {pair!r:.60} is not a pair")
        given, fn = pair
        for asked in _asked_for(points, given):
            name = _by_row(points, asked)
            function = _tried_first(asked, fn, points[asked], length)
            if name in entered:
                block = int(name.split(".")[1])
                entering.append((f"blocks.{block - 1}.hook_resid_post", function))
            else:
                hooks.append((name, function))
    return hooks + entering


def _asked_for(
    points: Mapping[str, HookPoint], given: str | Callable[[str], bool]
) -> Iterable[str]:
    """The hook of a name, or those that a filter fits."""
    if isinstance(given, str):
        if given not in points:
            raise ValueError(f"the model has no hook called {given!r}: see bridge.hook_dict")
        return [given]
    # Two names may be one point, at which a filter's function acts once in TransformerLens.
    names = {id(points[name]): name for name in points if given(name)}
    if not names:
        raise ValueError(
            "a filter of fwd_hooks fits none of the model's hooks: see bridge.hook_dict"
        )
    return names.values()


def _by_row(points: Mapping[str, HookPoint], asked: str) -> str:
    """The name, among all names of the same point, that has one row for each position."""
    for name, point in points.items():
        by_row = name.startswith("blocks.") and name.endswith(_BY_ROW)
        if point is points[asked] and by_row and name != _BEFORE_ALL_BLOCKS:
            return name
    raise ValueError(
        f"fwd_hooks may be on {', '.join(_BY_ROW)} of a block (but not on {_BEFORE_ALL_BLOCKS}), "
        f"which have one row for each position; got {asked}"
    )


def _tried_first(name: str, fn: HookFunction, point: HookPoint, length: int) -> HookFunction:
    """The function at its point, wherever it is put."""
    tried = False

    def change_rows(tensor: Tensor, hook: HookPoint) -> Tensor | None:
        nonlocal tried
        if not tried:
            _require_by_row(name, fn, tensor.detach(), point, length)
            tried = True
        return fn(tensor, hook=point)

    return change_rows


@torch.no_grad()
def _require_by_row(
    name: str, fn: HookFunction, tensor: Shaped[Tensor, "batch row *rest"], hook: HookPoint, n: int
) -> None:
    """Raise `ValueError` unless a row comes out the same alone, among others, and further back."""

    def after(rows: Tensor) -> Tensor:
        changed = rows.clone()
        returned = fn(changed, hook=hook)
        return changed if returned is None else returned

    whole, rows = after(tensor), tensor.flatten(0, 1)
    if whole.shape != tensor.shape:
        raise ValueError(
            f"the hook on {name} returned shape {tuple(whole.shape)} for {tuple(tensor.shape)}"
        )
    expected = whole.flatten(0, 1)
    behind = torch.arange(n + len(rows), device=rows.device) % len(rows)
    # Each row is held to its own size: the first token's may be a hundred times the others'.
    sizes = [_sizes(each.masked_fill(~each.isfinite(), 0)) for each in (expected, rows)]
    allowed = _TOLERANCE[is_half(tensor.dtype)] * torch.maximum(*sizes)
    first_alone, last_alone = behind[:1], behind[len(rows) - 1 : len(rows)]
    for picked in (behind, first_alone, last_alone):
        actual = after(rows[picked][None])[0]
        same = (actual == expected[picked]) | (actual.isnan() & expected[picked].isnan())
        error = _sizes((actual - expected[picked]).masked_fill(same, 0))
        if not (error <= allowed[picked]).all():
            raise ValueError(
                f"the hook on {name} does not change every position in the same way, independently "
                "of the others: its result depends on the place of a row, on other rows, on the "
                "batch, or on chance. Here it would run on patched and clean copies of positions: "
                "below the patch, put it on the bridge, and elsewhere use it with patch.fwd_hooks "
                "in your own run"
            )


def _sizes(rows: Shaped[Tensor, "row ..."]) -> Float[Tensor, " row"]:
    return rows.flatten(1).to(at_least_float32(rows.dtype)).norm(dim=-1)
