"""Hooks of a bridge, set aside or put on for a while, and the library's own kinds of hooks.

Hooks that keep a tensor, change it or stop the run are made here, so no other module needs a
closure of its own. TransformerLens calls every hook as `hook(tensor, hook=point)`.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException

from .exclusive import exclusive
from .kinds import ReadableModel
from .restoration import Change
from .tokens import TokenBatch
from .user_hooks import has_temporary_hooks, hooked_modules

HookFunction = Callable[..., Tensor | None]
Hook = tuple[str, HookFunction]

TOKENS = "embed.hook_in"
"""The hook where a run shows its token ids."""

Key = TypeVar("Key")

# Where torch keeps the forward hooks of a module, and what it knows of each.
_PLACES_OF_TORCH = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


@contextmanager
def without_hooks(hook_points: Iterable[HookPoint]) -> Iterator[None]:
    """Run modules without the hooks that a user has put on them; afterwards the hooks are back.

    Permanent hooks stay, because some architectures are adapted by them.
    """
    # There are hundreds of points, and hardly any has a hook.
    with_hooks = [point for point in hook_points if point.fwd_hooks or point.bwd_hooks]
    points = [point for point in with_hooks if has_temporary_hooks(point)]
    saved = [(point, point._forward_hooks, point._backward_hooks) for point in points]

    def put_back() -> None:
        for point, forward_hooks, backward_hooks in saved:
            point._forward_hooks, point._backward_hooks = forward_hooks, backward_hooks

    change = Change(put_back)
    try:
        for point, *directions in saved:
            permanent = {h.hook.id for h in (*point.fwd_hooks, *point.bwd_hooks) if h.is_permanent}
            point._forward_hooks, point._backward_hooks = (
                OrderedDict((key, fn) for key, fn in hooks.items() if key in permanent)
                for hooks in directions
            )
        yield
    finally:
        change.restore()


def last_logits_only(bridge: TransformerBridge) -> dict[str, Tensor]:
    """Options of a forward that computes the logits of the last position alone.

    Empty for a model that cannot, or if the user has a hook on the unembedding, which may be made
    for all positions.
    """
    parameters = inspect.signature(type(bridge.original_model).forward).parameters
    if "logits_to_keep" not in parameters or hooked_modules(bridge, "unembed"):
        return {}
    # A number has two drawbacks. Models slice, and torch multiplies the rows of a slice of several
    # texts one by one, each by all of the unembedding; an index makes one matrix of them. And
    # Gemma 4 also runs the blocks that share keys and values at few positions.
    return {"logits_to_keep": torch.tensor([-1])}


def _taking_off(points: Iterable[HookPoint]) -> Callable[[], None]:
    """What takes off the forward hooks that are put on some points from now on.

    Permanent ones stay, which only the user can have put on.
    """
    found = [
        (point, {*point._forward_hooks, *(handle.hook.id for handle in point.fwd_hooks)})
        for point in points
    ]

    def take_off() -> None:
        for point, before in found:
            stay = before | {handle.hook.id for handle in point.fwd_hooks if handle.is_permanent}
            # Not by the handles: an interrupt may come after torch has a hook and before
            # TransformerLens has its handle.
            for key in set(point._forward_hooks) - stay:
                del point._forward_hooks[key]
            point.fwd_hooks[:] = [h for h in point.fwd_hooks if h.hook.id in stay]

    return take_off


@contextmanager
def hooks_as_found(bridge: ReadableModel) -> Iterator[None]:
    """Take off what TransformerLens has put on inside and an interrupt has left on."""
    level, take_off = bridge.context_level, _taking_off(bridge.hook_points())

    def put_back() -> None:
        take_off()
        bridge.context_level = level

    change = Change(put_back)
    try:
        yield
    except BaseException:
        change.restore()
        raise
    change.keep()


@contextmanager
def hooked(bridge: ReadableModel, hooks: Sequence[Hook]) -> Iterator[None]:
    """`bridge.hooks(fwd_hooks=hooks)`, of which an interrupt leaves nothing behind."""
    if not hooks:  # a bridge would look its names up all the same
        yield
        return
    with hooks_as_found(bridge), bridge.hooks(fwd_hooks=list(hooks)):
        yield


@contextmanager
def torch_hooks_as_found(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Take off torch's forward hooks that are put on some modules inside."""
    places = [getattr(module, name) for module in modules for name in _PLACES_OF_TORCH]
    before = [set(hooks) for hooks in places]

    def take_off() -> None:
        for hooks, keys in zip(places, before, strict=True):
            for key in set(hooks) - keys:
                del hooks[key]

    change = Change(take_off)
    try:
        yield
    finally:
        change.restore()


@contextmanager
def temporary_hooks(hooks: Sequence[tuple[HookPoint, HookFunction]]) -> Iterator[None]:
    """Hooks for the duration. `TransformerBridge.hooks` looks up names for over a millisecond."""
    change = Change(_taking_off([point for point, _ in hooks]))
    try:
        for point, hook_fn in hooks:
            point.add_hook(hook_fn)
        yield
    finally:
        change.restore()


def keep(
    kept: dict[Key, Tensor], key: Key, part: Callable[[Tensor], Tensor] | None = None
) -> HookFunction:
    """A hook that keeps the tensor that passes by, or a part of it, as `kept[key]`."""

    def keep_tensor(tensor: Tensor, hook: HookPoint) -> None:
        kept[key] = tensor if part is None else part(tensor)

    return keep_tensor


def change_layers(layers: Iterable[int], change: Callable[..., Tensor]) -> list[Hook]:
    """Hooks that replace `r[layer]` by `change(resid, layer=layer)` at some layers."""
    return [
        (f"blocks.{layer}.hook_resid_pre", partial(_changed, change=change, layer=layer))
        for layer in layers
    ]


def _changed(
    resid: Tensor, hook: HookPoint, *, change: Callable[..., Tensor], layer: int
) -> Tensor:
    # A function of the module, so that a checkpoint can know a hook by it and its arguments.
    return change(resid, layer=layer)


def missing_hooks(bridge: ReadableModel, names: Iterable[str]) -> list[str]:
    """Those of some names that no hook of the model has."""
    # A bridge puts these names together anew each time that it is asked for them.
    known = bridge.hook_dict
    return [name for name in names if name not in known]


def require_hooks(bridge: ReadableModel, names: Iterable[str]) -> None:
    """Raise `ValueError` if a model of sae-lens has no hook of one of these names.

    The bridge of sae-lens loses the names of hooks, and its `HookedSAETransformer` loses those
    where an SAE sits.
    """
    missing = missing_hooks(bridge, names)
    if missing:
        raise ValueError(
            f"this {type(bridge).__name__} has no hook called {missing[0]}: run an SAE as a hook "
            "on a plain TransformerBridge instead, with bridge.hooks(fwd_hooks=[(name, lambda "
            "tensor, hook: sae(tensor))])"
        )


def require_tokens(bridge: ReadableModel, batch: TokenBatch) -> Hook:
    """A hook at a point where a run knows its tokens, which refuses tokens other than `batch`.

    A `HookedTransformer` shows no ids, so their embeddings are compared. Padding is not compared,
    and runs of another shape pass. The hook raises `ValueError`.
    """
    expected = batch.tokens

    def refuse(differs: Bool[Tensor, "batch pos"], found: Callable[[int, int], str]) -> None:
        for row, column in (differs & batch.mask).nonzero()[:1].tolist():
            raise ValueError(
                f"the hooks were made for other tokens: in column {column} text {row} has "
                f"{found(row, column)}, expected id {int(expected[row, column])}; make hooks "
                "for the tokens that the model runs on"
            )

    def compare_ids(tokens: Tensor, hook: HookPoint) -> None:
        if tokens.shape == expected.shape and not tokens.is_floating_point():
            refuse(tokens != expected, lambda row, column: f"id {int(tokens[row, column])}")

    def compare_embeddings(embedded: Tensor, hook: HookPoint) -> None:
        if embedded.shape[:2] == expected.shape:
            differs = (embedded != bridge.embed(expected)).any(-1)
            refuse(differs, lambda *_: "another embedding (a hook on hook_embed goes after these)")

    if TOKENS in bridge.hook_dict:
        return TOKENS, compare_ids
    return "hook_embed", compare_embeddings


def stop(tensor: Tensor, hook: HookPoint) -> None:
    """A hook at which the run ends: the bridge returns the tensor that arrives."""
    raise StopAtLayerException(tensor)


@exclusive
def capture(
    bridge: ReadableModel,
    tokens: Int[Tensor, "batch pos"],
    names: Sequence[str],
    **forward: Any,
) -> list[Tensor]:
    """The tensors at some hooks, in the order of `names`; the run stops when it has them all.

    `forward` is passed on to the bridge.
    """
    captured: dict[str, Tensor] = {}

    def stop_after_all(tensor: Tensor, hook: HookPoint) -> None:
        if len(captured) == len(names):
            stop(tensor, hook)

    hooks = [(name, fn) for name in names for fn in (keep(captured, name), stop_after_all)]
    # A bridge itself catches what ends a run.
    with hooked(bridge, hooks), suppress(StopAtLayerException):
        # The model's own cache stays on, since TransformerLens 4.3 cannot run OLMo 2 in half
        # precision without it.
        bridge(tokens, **forward)
    return [captured[name] for name in names]
