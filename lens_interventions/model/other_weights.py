"""Other weights for some linear modules of a bridge, for as long as a `with` lasts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from .exclusive import exclusive_use
from .kinds import ReadableModel, inner_model

# The names of the other weights, by the model inside the bridge that has them.
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def attention_inputs(bridge: TransformerBridge, layer: int) -> dict[str, nn.Linear]:
    """The modules of a block that make queries, keys and values: "q", "k" and "v".

    TransformerLens splits a joint matrix, and then runs the parts that are returned here.

    Raises `NotImplementedError` for a block without such modules.
    """
    attention = bridge.blocks[layer]._modules.get("attn")
    found = {}
    for name in ("q", "k", "v"):
        part = attention._modules.get(name) if attention is not None else None
        linear = part._modules.get("_original_component") if part is not None else None
        if not isinstance(linear, nn.Linear):
            raise NotImplementedError(
                f"block {layer} of {bridge.cfg.architecture} has no linear module attn.{name}"
            )
        found[name] = linear
    return found


@contextmanager
def other_weights(
    bridge: TransformerBridge,
    weights: Mapping[nn.Linear, Float[Tensor, "_ _"]],
    name: str,
) -> Iterator[None]:
    """Inside, modules of the bridge have other weights, through which gradients flow.

    The parameters themselves are not written to, so they come back bit for bit. Other threads that
    want the model wait.

    **Arguments:**

    - `weights`: the other weights by module.
    - `name`: what `fingerprint` returns for the model inside.

    Raises `ValueError` if the model has other weights already.
    """
    model = bridge.original_model
    with exclusive_use(bridge):
        if model in _names:
            raise ValueError(
                "an adapted reader is on this model already: leave its `with` block first"
            )
        before = {module: module._parameters["weight"] for module in weights}
        try:
            _names[model] = name
            for module, weight in weights.items():
                # Assigning the attribute would ask for a parameter, which is a leaf.
                module._parameters["weight"] = weight  # type: ignore[assignment]
            yield
        finally:
            for module, parameter in before.items():
                module._parameters["weight"] = parameter
            _names.pop(model, None)


def name_of_weights(bridge: ReadableModel) -> str | None:
    """The name of the weights that `other_weights` gave to a model; None if it has its own."""
    return _names.get(inner_model(bridge))
