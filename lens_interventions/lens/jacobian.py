"""TransformerLens's Jacobian lens (Gurnee et al. 2026), with this library's numbers of layers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis import JacobianLens

from ..model.hub import hub_if_it_answers
from .affine import carry_back


@dataclass(frozen=True)
class JacobianTransport:
    """A Jacobian lens, whose layer l is the output of block l, as a map of `r[layer]`.

    The input of block 0 has no map there, and is read as it is.
    """

    jacobian: JacobianLens

    @property
    def name(self) -> str:
        """The name of the lens in a trajectory."""
        corpus = self.jacobian.metadata.get("corpus")
        return f"Jacobian lens from {self.jacobian.n_prompts} prompts" + (
            f" of {corpus}" if corpus else ""
        )

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`J_{l-1} r[l]`."""
        if layer == 0:
            return residual
        self._require(layer)
        return self.jacobian.transport(residual, layer - 1).to(residual.dtype)

    def inverse(self, layer: int) -> Float[Tensor, "d_model d_model"]:
        """`P` that carries a direction at the last point back to `layer`: `d P linear ~ d`."""
        if layer == 0:
            return torch.eye(self.jacobian.d_model)
        self._require(layer)
        return carry_back(self.jacobian.jacobians[layer - 1].T)

    def _require(self, layer: int) -> None:
        if layer - 1 not in self.jacobian.source_layers:
            raise ValueError(
                f"the Jacobian lens was not fitted for the output of block {layer - 1}, which is "
                f"point {layer}_pre, but for blocks {self.jacobian.source_layers}: read other "
                "points"
            )


def published_jacobian_lens(name: str) -> JacobianLens:
    """The lens that TransformerLens's registry has for a model, such as "gemma-3-270m".

    It comes from the hub, or from the local cache if the hub cannot be reached.

    Raises `FileNotFoundError` if neither has one.
    """
    try:
        with hub_if_it_answers():
            return JacobianLens.from_pretrained(name)
    except (OSError, ValueError) as error:  # by the hub's client, by name
        raise FileNotFoundError(
            f"{name!r} is not a file, and neither the local cache nor the hub, if it can be "
            "reached, has a Jacobian lens of that name: give a file, or a name from "
            "TransformerLens's jacobian_lens_registry.json"
        ) from error
