"""The model inside a bridge, run without those of the bridge's components that have no hooks.

A `TransformerBridge` replaces the modules of a Hugging Face model by components that call the
hooks. For one token, these take most of the time beyond reading the weights: on the default model
and a 2-core CPU, a token takes 52 ms with the components and 35 ms without, for the same logits.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge, component_setup
from transformer_lens.model_bridge.generalized_components import base, block

from .capabilities import weights_processed
from .grouped_attention import GROUPED
from .kinds import weight_dtype

# TransformerLens listens to its own components in these modules, for hooks elsewhere in the same
# block.
_LISTENING = (component_setup.__name__, block.__name__)


@dataclass(frozen=True)
class _Unit:
    """A component that no other component wraps (a block, an embedding), with all that it wraps.

    Attributes:
        listeners: the modules whose hooks only fire while they are in place.
        attributes: their own attributes. By the time that decoding asks for the next token, the
            weights have driven the modules out of the processor's cache, and these are read faster.
        places: where each component stands in the model, and the module that it stands for.
        attentions: the attributes of the modules that ask their configuration how to attend.
    """

    listeners: tuple[nn.Module, ...]
    attributes: tuple[dict[str, Any], ...]
    places: tuple[tuple[dict[str, nn.Module | None], str, nn.Module], ...]
    attentions: tuple[dict[str, Any], ...]

    @property
    def hooked(self) -> bool:
        """Whether anybody has put a hook on a listener."""
        return any(map(_is_hooked, self.listeners))

    @property
    def replaced(self) -> bool:
        """Whether a listener has another forward than its class."""
        return any("forward" in attributes for attributes in self.attributes)


class Unwrapping:
    """Takes quiet components out of one bridge's model, for as long as a `with` lasts.

    A block stays as it is while any hook, backward hook or replaced forward is on one of its
    components, so a user's hooks fire as always. Components with weights of their own stay too
    (TransformerLens splits joint query-key-value matrices). All components stay if the weights were
    processed, and in float64, which the modules of transformers round to float32 in norms and
    attention.

    The modules attend by `grouped_attention` if that computes the same as their own attention.
    """

    def __init__(self, bridge: TransformerBridge) -> None:
        self._bridge = bridge
        self._units = tuple(_units(bridge.original_model))
        self._hookless: tuple[_Unit, ...] = ()
        self._hooks_made = -1
        self._float64 = weight_dtype(bridge) == torch.float64
        attentions = (each for unit in self._units for each in unit.attentions)
        configs = {id(each["config"]): each["config"] for each in attentions}
        self._grouped = {key: _grouping(config) for key, config in configs.items()}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, the model runs its own modules; afterwards the components are back."""
        taken: list[tuple[dict[str, Any], str, object]] = []
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
            for place, name, value in taken:
                place[name] = value

    def _quiet_units(self) -> list[_Unit]:
        bridge = self._bridge
        if weights_processed(bridge) or self._float64:
            return []
        # Looking through all hooks takes longer than running a block. While torch has made no new
        # one, no module without a hook has got one.
        if self._hooks_made != RemovableHandle.next_id:
            self._hookless = tuple(unit for unit in self._units if not unit.hooked)
            self._hooks_made = RemovableHandle.next_id
        return [unit for unit in self._hookless if not unit.replaced]


def _is_hooked(module: nn.Module) -> bool:
    if module._backward_hooks:
        return True
    if not (module._forward_hooks or module._forward_pre_hooks):
        return False
    if isinstance(module, HookPoint):
        hooks = [handle.user_hook for handle in (*module.fwd_hooks, *module.bwd_hooks)]
    else:
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(getattr(hook, "__module__", None) not in _LISTENING for hook in hooks)


def _units(module: nn.Module) -> Iterator[_Unit]:
    for name, child in module._modules.items():
        if child is None:
            continue
        if _wraps(child):
            places = tuple(_places(module, name))
            listeners = [m for m in child.modules() if isinstance(m, HookPoint) or _wraps(m)]
            yield _Unit(
                tuple(listeners),
                tuple(map(vars, listeners)),
                places,
                tuple(vars(original) for *_, original in places if _asks_how_to_attend(original)),
            )
        else:
            yield from _units(child)


def _places(
    module: nn.Module, name: str
) -> Iterator[tuple[dict[str, nn.Module | None], str, nn.Module]]:
    child = module._modules[name]
    assert child is not None
    if _wraps(child):
        original = child._modules["_original_component"]
        assert original is not None
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
