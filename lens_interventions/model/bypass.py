"""The model inside a bridge, run without those of the bridge's components that have no hooks.

A `TransformerBridge` replaces the modules of a Hugging Face model by components that call the
hooks. For one token, these take most of the time beyond reading the weights: on the embedded model
and a 2-core CPU, a token takes 52 ms with the components and 35 ms without, for the same logits.
"""

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)
from torch.utils.hooks import RemovableHandle
from transformer_lens import hook_points
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge, component_setup
from transformer_lens.model_bridge.generalized_components import base, block

from .attention_masks import additive_masks
from .capabilities import few_tokens, recall, weights_processed
from .grouped_attention import GROUPED
from .hooks import torch_hooks_as_found, without_hooks
from .kinds import weight_dtype
from .llama_block import LlamaBlock, has_parts, same_update
from .replaced_forwards import replaced_forward
from .restoration import Change

# TransformerLens listens to its own components in these modules, for hooks elsewhere in the same
# block; and transformers to its modules, for callers that ask for more than logits.
_LISTENING = (component_setup.__name__, block.__name__, "transformers.utils.output_capturing")

# torch's own hooks on all modules. These mappings fill and empty while the library runs.
_OF_ALL_MODULES = (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

# Where a module stands in the model, and the module to put there.
_Place = tuple[dict[str, nn.Module | None], str, nn.Module]


@dataclass(frozen=True)
class _Unit:
    """A component that no other component wraps (a block, an embedding), with all that it wraps.

    Attributes:
        attributes: those of all its components. By the time that decoding asks for the next token,
            the weights have driven the modules out of the processor's cache, and these are read
            faster.
        listeners: the modules whose hooks only fire while they are in place.
        places: where each component stands in the model, and the module that it stands for.
        attentions: the attributes of the modules that ask their configuration how to attend.
    """

    attributes: tuple[dict[str, Any], ...]
    listeners: tuple[nn.Module, ...]
    places: tuple[_Place, ...]
    attentions: tuple[dict[str, Any], ...]

    @property
    def quiet(self) -> bool:
        """Whether no listener has a user's hook or, unless it is a Linear, another forward."""
        return not any(map(_is_listened_to, self.listeners))

    @property
    def replaced(self) -> bool:
        """Whether a component has another forward than its class."""
        return any("forward" in attributes for attributes in self.attributes)


class Unwrapping:
    """Takes quiet components out of one bridge's model, for as long as a `with` lasts.

    A block stays as it is while any hook, backward hook or replaced forward is on one of its
    components, so a user's hooks fire as always. Components with weights of their own stay too
    (TransformerLens splits joint query-key-value matrices). All components stay if the weights were
    processed, and in float64, which the modules of transformers round to float32 in norms and
    attention.

    The modules attend by `grouped_attention` if that computes the same as their own attention. In
    float32 without autocast, a `LlamaBlock` stands for a module that computes the same and has no
    hook.
    """

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge = bridge
        self._units = tuple(_units(bridge.original_model))
        self._quiet: tuple[_Unit, ...] = ()
        self._state: tuple[int, bool] | None = None
        self._device_type = bridge.W_U.device.type
        dtype = weight_dtype(bridge)
        self._float64 = dtype == torch.float64
        self._short: dict[int, _Unit] = {}
        if dtype == torch.float32 and not torch.is_autocast_enabled(self._device_type):
            self._short = _short_units(bridge, self._units)
        attentions = (each for unit in self._units for each in unit.attentions)
        configs = {id(each["config"]): each["config"] for each in attentions}
        self._grouped = {key: _grouping(config) for key, config in configs.items()}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, the model runs its own modules; afterwards the components are back."""
        taken: list[tuple[dict[str, Any], str, object]] = []

        def put_back() -> None:
            for place, name, value in taken:
                place[name] = value

        change = Change(put_back)
        try:
            for unit in self._quiet_units():
                for modules, name, original in unit.places:
                    taken.append((modules, name, modules[name]))
                    modules[name] = original
                for attributes in unit.attentions:
                    taken.append((attributes, "config", attributes["config"]))
                    attributes["config"] = self._grouped[id(attributes["config"])]
            yield
        finally:
            change.restore()

    def _quiet_units(self) -> list[_Unit]:
        bridge = self._bridge
        if weights_processed(bridge) or self._float64:
            return []
        autocast = torch.is_autocast_enabled(self._device_type)
        # Looking through all hooks takes longer than running a block. While torch has made no new
        # one, no module without a hook has got one.
        if self._state != (state := (RemovableHandle.next_id, autocast)):
            # A `LlamaBlock` leaves no precision to autocast, and no module to hooks on all modules.
            short = {} if autocast or any(_OF_ALL_MODULES) else self._short
            self._quiet = tuple(_shortest(unit, short) for unit in self._units if unit.quiet)
            self._state = state
        return [unit for unit in self._quiet if not unit.replaced]


def _shortest(unit: _Unit, others: Mapping[int, _Unit]) -> _Unit:
    other = others.get(id(unit.listeners[0]))
    return unit if other is None or not other.quiet else other


def _is_listened_to(module: nn.Module) -> bool:
    # A forward that was put in the place of a product is called by a `LlamaBlock` too.
    forward = None if type(module) is nn.Linear else replaced_forward(module)
    return forward is not None or _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    if module._backward_hooks:
        return True
    if not (module._forward_hooks or module._forward_pre_hooks):
        return False
    hooks: list[Any] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if isinstance(module, HookPoint):
        handles = (*module.fwd_hooks, *module.bwd_hooks)
        own = hook_points.__name__
        hooks = [hook for hook in hooks if getattr(hook, "__module__", None) != own]
        hooks += [handle.user_hook for handle in handles]
    return any(getattr(hook, "__module__", None) not in _LISTENING for hook in hooks)


def _units(module: nn.Module) -> Iterator[_Unit]:
    for name, child in module._modules.items():
        if child is None:
            continue
        if not _wraps(child):
            yield from _units(child)
        elif places := tuple(_places(module, name)):
            listeners = [m for m in child.modules() if isinstance(m, HookPoint) or _wraps(m)]
            yield _Unit(
                tuple(vars(each) for each in listeners if _wraps(each)),
                tuple(listeners),
                places,
                tuple(vars(original) for *_, original in places if _asks_how_to_attend(original)),
            )


def _short_units(bridge: TransformerBridge, units: Sequence[_Unit]) -> dict[int, _Unit]:
    """The units of blocks that a `LlamaBlock` can stand for, with it, by the component's id."""
    alike = recall(bridge, "blocks that compute what Llama's do", partial(_llama_blocks, bridge))
    blocks = {id(block) for number, block in enumerate(bridge.blocks) if number in alike}
    found = {}
    for unit in units:
        component = unit.listeners[0]
        if id(component) not in blocks:
            continue
        modules, name, original = unit.places[0]
        # Parts may have been replaced since the blocks were tried, as by parametrizations.
        if has_parts(original):
            found[id(component)] = replace(
                unit,
                listeners=tuple(component.modules()),
                places=((modules, name, LlamaBlock(original)),),
                attentions=(),
            )
    return found


def _llama_blocks(bridge: TransformerBridge) -> frozenset[int]:
    """The blocks that compute what a `LlamaBlock` does, tried on a few tokens."""
    found = set()

    def compare(number: int, original: nn.Module, _component: Any, *call: Any) -> None:
        if same_update(LlamaBlock(original), *call):
            found.add(number)

    originals: list[Any] = [block._modules["_original_component"] for block in bridge.blocks]
    looked_at = [number for number, original in enumerate(originals) if has_parts(original)]
    if not looked_at:
        return frozenset()
    try:
        with torch_hooks_as_found(bridge.blocks):
            for number in looked_at:
                look = partial(compare, number, originals[number])
                bridge.blocks[number].register_forward_hook(look, with_kwargs=True)
            _run_at_the_end(bridge)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return frozenset()  # no mask of this form, or hooks of torch that are made for other texts
    return frozenset(found)


@torch.no_grad()
def _run_at_the_end(bridge: TransformerBridge) -> None:
    """Run a few tokens at the last positions, where a scale that grows with them is not 1."""
    tokens, end = few_tokens(bridge), int(bridge.cfg.n_ctx)
    position = torch.arange(end - tokens.shape[1], end, device=tokens.device)
    distance = position[:, None] - position
    masks = additive_masks(bridge, distance[None] >= 0, distance, weight_dtype(bridge))
    with without_hooks(bridge.hook_points()):
        bridge(tokens, attention_mask=masks, position_ids=position[None], use_cache=False)


def _places(module: nn.Module, name: str) -> Iterator[_Place]:
    child = module._modules[name]
    assert child is not None
    if _wraps(child):
        original = child._modules["_original_component"]
        assert original is not None
        if _wraps(original):
            return  # the model is in two bridges, and the components of one call those of the other
        reached = {id(parameter) for parameter in original.parameters()}
        if all(id(parameter) in reached for parameter in child.parameters()):
            yield module._modules, name, original
        child = original
    for inner, grandchild in child._modules.items():
        if grandchild is not None:
            yield from _places(child, inner)


def _asks_how_to_attend(module: nn.Module) -> bool:
    config = vars(module).get("config")
    own = hasattr(sys.modules[type(module).__module__], "eager_attention_forward")
    return own and getattr(config, "_attn_implementation", None) == "eager"


def _grouping(config: Any) -> Any:
    config = copy.deepcopy(config)
    config._attn_implementation = GROUPED
    return config


def _wraps(module: nn.Module) -> bool:
    return (
        isinstance(module, base.GeneralizedComponent)
        and module._modules.get("_original_component") is not None
    )
