"""The hooks that a user has put on a model: whether there are any, and what follows from that."""

from collections.abc import Iterable, Iterator, Sequence

from torch import nn
from transformer_lens.hook_points import HookPoint

from .kinds import ReadableModel, inner_model
from .tokens import TokenBatch

# The packages that put torch's hooks on modules, for their own use.
_LIBRARIES = ("transformer_lens", "transformers", __package__.partition(".")[0])


def has_user_hooks(bridge: ReadableModel) -> bool:
    """Whether the user has put a hook of any kind on the model: it may be made for whole texts."""
    return any(map(has_temporary_hooks, bridge.hook_points())) or bool(lasting_hooks(bridge))


def has_temporary_hooks(point: HookPoint) -> bool:
    """Whether the point has a hook that `reset_hooks` would take off."""
    return any(not handle.is_permanent for handle in (*point.fwd_hooks, *point.bwd_hooks))


def lasting_hooks(bridge: ReadableModel) -> tuple[int, ...]:
    """The user's hooks that `reset_hooks` leaves on: permanent ones, and torch's on any module.

    They are given by torch's numbers, which are never used twice. The hooks by which libraries
    adapt architectures and listen to modules do not count.
    """
    return lasting_hooks_on(modules_of(bridge))


def lasting_hooks_on(modules: Iterable[nn.Module]) -> tuple[int, ...]:
    """The user's lasting hooks on some modules themselves, and not on those inside them."""
    found: list[int] = []
    for module in modules:
        if not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks):
            continue
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            found += [key for key, hook in hooks.items() if not _is_of(hook, _LIBRARIES)]
        if isinstance(module, HookPoint):
            found += [
                handle.hook.id
                for handle in (*module.fwd_hooks, *module.bwd_hooks)
                if handle.is_permanent and not _is_of(handle.user_hook, _LIBRARIES[:1])
            ]
    return tuple(found)


def hooked_modules(bridge: ReadableModel, part: str, *, lasting: bool = True) -> list[str]:
    """Names of the modules in a part of the model that have a hook of the user.

    `part` is an attribute of the model such as `unembed`; without it there are none. Unless they
    are to count, `lasting_hooks` do not.
    """
    within = bridge._modules.get(part)
    return [
        name
        for name, module in (() if within is None else within.named_modules(prefix=part))
        if (isinstance(module, HookPoint) and has_temporary_hooks(module))
        or (lasting and lasting_hooks_on([module]))
    ]


def moved_right(bridge: ReadableModel, batch: TokenBatch) -> TokenBatch:
    """The batch with all padding on the right, where a causal model ignores it.

    Columns of padding alone are cut off, unless there are hooks of the user, which may be made for
    them, and the model can read as many.

    Raises `ValueError` if that moves a text while the user has hooks on the model, which would find
    its tokens in other columns than in the user's own runs.
    """
    with_hooks = has_user_hooks(bridge)
    if with_hooks and batch.left_padded:
        raise ValueError(
            "there are hooks on the bridge and padding on the left, which would be moved to the "
            "right, away from the columns that the hooks expect: pad on the right, or take the "
            "hooks off for this call (logit_lens also reads the ActivationCache of a hooked run)"
        )
    fits = batch.tokens.shape[1] <= int(bridge.cfg.n_ctx)
    return batch if with_hooks and fits else batch.padded_on("right")


def modules_of(bridge: ReadableModel) -> Iterator[nn.Module]:
    """All modules of a model, in a tenth of the time of `modules()`, which names each of them."""
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [bridge, inner_model(bridge)]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in seen:
            seen.add(id(module))
            waiting += module._modules.values()
            yield module


def _is_of(hook: object, packages: Sequence[str]) -> bool:
    return str(getattr(hook, "__module__", None)).partition(".")[0] in packages
