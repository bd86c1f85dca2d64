"""The moments of AdamW as named tensors, for a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor


def optimizer_tensors(
    optimizer: torch.optim.AdamW, parameters: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What the optimizer keeps of its parameters, by `adam.NAME.KEY`.

    **Arguments:**

    - `parameters`: those that it optimizes, by name. One that has had no gradient is left out.
    """
    return {
        f"adam.{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.AdamW,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
) -> None:
    """Give a new optimizer what `optimizer_tensors` returned; other tensors are passed over."""
    for name, parameter in parameters.items():
        prefix = f"adam.{name}."
        # AdamW keeps its count of steps on the CPU, and the moments beside their parameter.
        kept = {
            key.removeprefix(prefix): value if value.ndim == 0 else value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if kept:
            optimizer.state[parameter] = kept
