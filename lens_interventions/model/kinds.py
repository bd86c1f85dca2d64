"""The kinds of models: a `TransformerBridge` for everything, a `HookedTransformer` for reading.

`HookedTransformer` is TransformerLens's own implementation of models, which exists up to version 3.
It has the hooks, the final norm and the unembedding of a bridge, but neither the attention nor the
caches of transformers, which teacher forcing and generation rely on.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.block import VARIANT_SUBMODULE_NAMES
from transformer_lens.utilities.activation_functions import apply_softcap

if TYPE_CHECKING:

    class HookedTransformer(nn.Module):  # A type checker only needs to know that it is no bridge.
        def __getattr__(self, name: str) -> Any: ...

else:
    try:
        from transformer_lens import HookedTransformer
    except ImportError:  # TransformerLens has none since version 4
        HookedTransformer = TransformerBridge

ReadableModel = TransformerBridge | HookedTransformer
"""A model that a lens reads and that takes the hooks of a patch."""


def require_kind(model: object, kind: Any, purpose: str) -> None:
    """Raise `TypeError` for a model that is not of the kind that `purpose` needs.

    `kind` is `TransformerBridge` or `ReadableModel`.
    """
    if isinstance(model, kind):
        return
    readable = isinstance(model, ReadableModel)
    raise TypeError(
        f"{purpose} expects a TransformerBridge, got a {type(model).__name__}"
        f"{', which can only be read and hooked' if readable else ''}: boot one with "
        "lens_interventions.load_model or TransformerBridge.boot_transformers"
    )


def inner_model(model: ReadableModel) -> nn.Module:
    """The module with the weights: the one inside a bridge, a `HookedTransformer` itself."""
    return model.original_model if isinstance(model, TransformerBridge) else model


def text_config(bridge: TransformerBridge) -> Any | None:
    """The config of transformers for the decoder; None if the bridge has a network without one.

    `TransformerBridge.boot_native` makes such networks, from TransformerLens's own config.
    """
    config: Any = getattr(bridge.original_model, "config", None)
    return None if config is None else config.get_text_config(decoder=True)


def architecture(model: ReadableModel) -> str:
    """The name of the model in errors."""
    return getattr(model.cfg, "architecture", None) or type(model).__name__


def weight_dtype(model: ReadableModel) -> torch.dtype:
    """The dtype of the weights, which `cfg.dtype` is not for a model that was converted later."""
    return model.W_E.dtype


def key_value_heads(model: ReadableModel) -> int:
    """How many heads of a layer have keys and values; several queries may share one."""
    return int(getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads)


def recurrent_parts(bridge: TransformerBridge) -> tuple[str, ...]:
    """The names of what carries a state from position to position in blocks, instead of attention.

    Empty for a transformer.
    """
    parts = {part for label in bridge.layer_types() for part in label.split("+")}
    return tuple(sorted(parts & ({*VARIANT_SUBMODULE_NAMES, "time_mix"} - {"attn"})))


def refuse_recurrent_parts(bridge: TransformerBridge) -> None:
    """Raise `NotImplementedError` for a model with `recurrent_parts`."""
    # The state of a recurrent layer cannot be taken back by one step.
    if recurrent := recurrent_parts(bridge):
        raise NotImplementedError(
            f"{architecture(bridge)} has recurrent layers ({', '.join(recurrent)}): next-token "
            "patches are defined only for models without them"
        )


def output_transform(model: ReadableModel) -> Callable[[Tensor], Tensor]:
    """The function that the model applies to its logits, `[..., d_vocab]`."""
    if isinstance(model, TransformerBridge):
        return model.adapter.apply_output_logits_transform
    return partial(apply_softcap, cap=model.cfg.output_logits_soft_cap)
