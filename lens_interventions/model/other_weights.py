"""Other weights for some linear modules of a bridge, for as long as a `with` lasts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers.pytorch_utils import Conv1D

from .exclusive import exclusive_use
from .kinds import ReadableModel, inner_model
from .restoration import Change

Linear = nn.Linear | Conv1D
"""A module that multiplies with a matrix; GPT-2's stores it transposed."""

# The names of the other weights, by the model inside the bridge that has them.
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def attention_inputs(bridge: TransformerBridge, layer: int) -> dict[str, Linear]:
    """The modules of a block that make queries, keys and values: "q", "k" and "v".

    TransformerLens splits a joint matrix, and then runs the parts that are returned here.

    Raises `NotImplementedError` for a block without such modules.
    """
    return _linears(bridge, layer, "attn", ("q", "k", "v"))


def mlp_matrices(bridge: TransformerBridge, layer: int) -> dict[str, Linear]:
    """The modules of a block's MLP: "in", "out", and "gate" if it has one.

    Raises `NotImplementedError` for a block without such modules, as one of experts is.
    """
    mlp = bridge.blocks[layer]._modules.get("mlp")
    gated = mlp is not None and "gate" in mlp._modules
    return _linears(bridge, layer, "mlp", ("gate", "in", "out") if gated else ("in", "out"))


def matrix(module: Linear) -> Float[Tensor, "d_out d_in"]:
    """The matrix that a module multiplies with."""
    return module.weight.T if isinstance(module, Conv1D) else module.weight


@contextmanager
def other_weights(
    bridge: TransformerBridge,
    weights: Mapping[Linear, Float[Tensor, "d_out d_in"]],
    name: str,
    *,
    of_user: bool = False,
) -> Iterator[None]:
    """Inside, modules of the bridge have other weights, through which gradients flow.

    The parameters themselves are not written to, so they come back bit for bit. Other threads that
    want the model wait.

    **Arguments:**

    - `weights`: the other weights by module.
    - `name`: what `fingerprint` returns for the model inside.
    - `of_user`: whether it is the user who ends it.

    Raises `ValueError` if the model has other weights already.
    """
    model = bridge.original_model
    with exclusive_use(bridge):
        if model in _names:
            raise ValueError(
                "an adapted reader is on this model already: leave its `with` block first"
            )
        before = {module: module._parameters["weight"] for module in weights}

        def put_back() -> None:
            for module, parameter in before.items():
                module._parameters["weight"] = parameter
            _names.pop(model, None)

        change = Change(put_back, of_user=of_user)
        try:
            _names[model] = name
            for module, weight in weights.items():
                # Assigning the attribute would ask for a parameter, which is a leaf.
                stored = weight.T if isinstance(module, Conv1D) else weight
                module._parameters["weight"] = stored  # type: ignore[assignment]
            yield
        finally:
            change.restore()


def _linears(
    bridge: TransformerBridge, layer: int, part: str, names: Sequence[str]
) -> dict[str, Linear]:
    modules = bridge.blocks[layer]._modules.get(part)
    found: dict[str, Linear] = {}
    for name in names:
        wrapper = modules._modules.get(name) if modules is not None else None
        linear = wrapper._modules.get("_original_component") if wrapper is not None else None
        if not isinstance(linear, Linear):
            raise NotImplementedError(
                f"block {layer} of {bridge.cfg.architecture} has no linear module {part}.{name}"
            )
        found[name] = linear
    return found


def name_of_weights(bridge: ReadableModel) -> str | None:
    """The name of the weights that `other_weights` gave to a model; None if it has its own."""
    return _names.get(inner_model(bridge))
