"""Bridges of transformers models that are in memory already."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components import base
from transformers import AutoTokenizer, PreTrainedModel

from .hub import hub_if_it_answers, hub_offline


def boot_in_memory(
    name: str | os.PathLike[str] | None,
    to: torch.dtype | None,
    *,
    hf_model: nn.Module,
    device: str | torch.device | None,
    **options: Any,
) -> TransformerBridge:
    """A bridge of `hf_model`, which is moved to `device` and converted `to` a dtype if given.

    `options` are those of `TransformerBridge.boot_transformers`, and `name` is that of the
    tokenizer if there is none among them.

    Raises `ValueError` as `load_model` does.
    """
    require_merged(hf_model)
    _require_weights(hf_model)
    _require_unembedding(hf_model)
    if any(isinstance(module, base.GeneralizedComponent) for module in hf_model.modules()):
        raise ValueError(
            "the model is in a bridge already, whose hooks would act in another one too: use that "
            "bridge, or pass hf_model=copy.deepcopy(model) before it is in one"
        )
    config: Any = hf_model.config
    label = os.fspath(name or config.name_or_path)
    options["device"] = device or next(hf_model.parameters()).device
    # TransformerLens would only write dtype and device down.
    with _converted(hf_model, to):
        if device is not None:
            hf_model.to(device)
        _require_one_dtype(hf_model)
        bridge = _boot(label, hf_model=hf_model, **options)
    # It may be another than the one that it was made from, which the name would load.
    if label:
        bridge.cfg.model_name = f"{label} (in memory)"
    return bridge


def require_merged(model: nn.Module) -> None:
    """Refuse low-rank adapters that are not merged: TransformerLens copies only the weights."""
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise unmerged()


def unmerged() -> ValueError:
    """What is said of adapters that are not merged."""
    return ValueError(
        "the model has adapters of peft that are not merged, which TransformerLens would leave "
        "out of some layers: pass hf_model=model.merge_and_unload()"
    )


@contextmanager
def _converted(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Convert what `from_pretrained` would: not the buffers of rotary frequencies, say.

    After an error the model has its own modules and weights again, and attends as it did. Without
    a dtype nothing is converted.
    """
    tensors = [
        tensor
        for tensor in model.state_dict(keep_vars=True).values()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    ]
    quantized = getattr(model, "is_quantized", False) or any(t.itemsize < 2 for t in tensors)
    if dtype is not None and quantized:
        raise ValueError(
            "the model's weights are quantized, and their scales would be lost in a conversion: "
            "leave dtype out"
        )
    own = [(tensor.device, tensor.dtype) for tensor in tensors]
    # A move to another device puts new ones into their place, and a state dict may lack some.
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    # TransformerLens puts components into the places of modules.
    parts = [(module._modules, dict(module._modules)) for module in model.modules()]
    # What a conversion widens can be converted back, and need not be kept as well.
    kept = {
        place: tensor.data
        for place, tensor in enumerate(tensors)
        if dtype is not None and torch.promote_types(tensor.dtype, dtype) != dtype
    }
    # TransformerLens sets another one before it asks for the tokenizer.
    config: Any = model.config
    attention = config._attn_implementation
    try:
        for tensor in tensors if dtype is not None else ():
            tensor.data = tensor.data.to(dtype)
        yield
    except BaseException:
        for places, modules in parts:
            places.clear()
            places.update(modules)
        config._attn_implementation = attention
        for place, tensor in enumerate(tensors):
            tensor.data = kept.get(place, tensor.data).to(*own[place])
        for module, of_module in buffers:
            module._buffers.update(of_module)
        raise


def _require_weights(model: Any) -> None:
    offloaded = next((n for n, weight in model.named_parameters() if weight.is_meta), None)
    if offloaded is not None:
        raise ValueError(
            f"{offloaded} is on torch's meta device, without values: load the model without "
            "offloading it"
        )
    for end in _ends(model):
        # In a quantized module it is a method.
        if not isinstance(end.weight, torch.Tensor):
            raise ValueError(
                f"the weights of {type(end).__name__} are quantized, and cannot be read: load the "
                "model without that"
            )


def _require_unembedding(model: Any) -> None:
    if not isinstance(model, PreTrainedModel):
        return
    with suppress(NotImplementedError):
        # TransformerLens makes the unembedding of an OpenELM from its embedding.
        tied = getattr(model.config, "share_input_output_layers", False)
        # That of images has no weight of its own.
        reads = hasattr(model.get_input_embeddings(), "weight")
        if tied or not reads or model.get_output_embeddings() is not None:
            return
        raise ValueError(
            f"{type(model).__name__} has no unembedding, so it makes no logits of next tokens: "
            "pass the language model, such as a ...ForCausalLM"
        )


def _ends(model: Any) -> list[Any]:
    """The embedding and the unembedding of tokens; encoders of images or sounds have none."""
    with suppress(NotImplementedError):
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        return [end for end in ends if hasattr(end, "weight")]
    return []


def _require_one_dtype(model: Any) -> None:
    # Before the boot, which puts other modules into the model.
    weights = [end.weight for end in _ends(model)]
    dtypes = [weight.dtype for weight in weights if weight.is_floating_point()]
    if len(set(dtypes)) > 1:
        raise ValueError(
            f"the model's embedding is {dtypes[0]} and its unembedding {dtypes[1]}, which torch "
            "does not multiply: give dtype= to convert both"
        )


@contextmanager
def _loadable(tokenizer: Any) -> Iterator[Any]:
    """A tokenizer that TransformerLens can load once more, as it does with a BOS token.

    One that was made in memory has no name to be loaded by, and is saved for that.
    """
    made = "name_or_path" not in getattr(tokenizer, "init_kwargs", {"name_or_path": ""})
    if not made or tokenizer.bos_token is None:
        yield tokenizer
        return
    with TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        yield AutoTokenizer.from_pretrained(place)


def _boot(name: str, **options: Any) -> TransformerBridge:
    """A bridge of `hf_model`; a tokenizer that is not given is the one that goes with `name`."""
    label = name or type(options["hf_model"]).__name__
    tokenizer = options.pop("tokenizer", None)
    if tokenizer is not None:
        with hub_offline(), _loadable(tokenizer) as named:
            bridge = TransformerBridge.boot_transformers(label, tokenizer=named, **options)
        if named is not tokenizer:  # rather than a directory that is no longer there
            bridge.tokenizer.name_or_path = tokenizer.name_or_path
        return bridge
    on_hub = name and not Path(name).is_dir()
    try:
        with hub_if_it_answers() if on_hub else hub_offline():
            return TransformerBridge.boot_transformers(label, **options)
    except OSError as error:
        raise ValueError(
            f"no tokenizer was given with the model, and none called {label!r} can be loaded: "
            "pass tokenizer="
        ) from error
