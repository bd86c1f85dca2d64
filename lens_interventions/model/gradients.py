"""Which parameters of a model ask for gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformer_lens.model_bridge import TransformerBridge


@contextmanager
def frozen(bridge: TransformerBridge) -> Iterator[None]:
    """No parameter of the model asks for a gradient inside; flags come back as they were."""
    modules = (bridge, bridge.original_model)
    parameters = {id(p): p for module in modules for p in module.parameters()}.values()
    asking = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
