"""Affine lenses: a linear map per layer from the residual stream to the last residual point.

The raw logit lens reads a middle layer in the coordinates of the last one. A map fitted between the
two makes the layer readable (Belrose et al. 2023, the tuned lens; Din et al. 2023, "Jump to
Conclusions").
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import load_tensors, narrowed, restored, save_tensors, widened
from ..model.fingerprint import unembedding_hash
from ..model.gradients import replace_inference_tensors
from ..model.kinds import ReadableModel
from ..model.same_weights import weights_mismatch

UNEMBEDDING, UNKNOWN = "unembedding", "unknown"

_SMALLEST_SINGULAR = 1e-2

_REMEDY = "fit one with fit_affine_lens"


@dataclass(frozen=True, eq=False)
class AffineLens:
    """`T_l(r) = r + r A_l + b_l`, the identity at the last point.

    Attributes:
        weight: `[layer, d_model, d_model]`, `A`.
        bias: `[layer, d_model]`, `b`.
        fingerprint: hash of the weights that the lens was fitted for, or `UNEMBEDDING` and a hash
            of the unembedding alone; the lens is refused on other weights, and used with a warning
            on the same weights in another dtype. `UNKNOWN` fits any model of its size.
        settings: model and its dtype, corpus and its hash, numbers of tokens and ridges of the fit.
    """

    weight: Float[Tensor, "layer d_model d_model"] = field(repr=False)
    bias: Float[Tensor, "layer d_model"] = field(repr=False)
    fingerprint: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the lens in a trajectory."""
        if source := self.settings.get("source"):
            return str(source)
        parts = ["affine lens"]
        if "tokens" in self.settings:
            parts.append(f"{self.settings['tokens']} tokens")
        if "refined" in self.settings:
            parts.append("refined")
        return ", ".join(parts)

    def __post_init__(self) -> None:
        replace_inference_tensors(self)

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`T_l(r[l])`; raises `ValueError` for a layer or a width that the lens does not have."""
        self._require_layer(layer)
        if residual.shape[-1] != (width := self.bias.shape[-1]):
            raise ValueError(
                f"the lens is for residuals of width {width}, got {residual.shape[-1]}: use the "
                "lens of this model"
            )
        weight = self.weight[layer].to(residual.device, residual.dtype)
        return residual + residual @ weight + self.bias[layer].to(residual.device, residual.dtype)

    def to(self, device: str | torch.device) -> "AffineLens":
        """The lens with its maps on a device, where a model need not copy them for every text."""
        return replace(self, weight=self.weight.to(device), bias=self.bias.to(device))

    def require_fits(self, bridge: ReadableModel) -> None:
        """Raise `ValueError` if the lens was not fitted for this bridge's weights."""
        shape = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
        other = self._other_weights(bridge)
        if other is not None or self.bias.shape != shape:
            raise ValueError(
                "this lens was fitted for {}, {} layers of width {} and weights {}; the bridge is "
                "{}, {} layers of width {} and {}".format(
                    self.settings.get("model"),
                    *self.bias.shape,
                    self.fingerprint,
                    bridge.cfg.model_name,
                    *shape,
                    other or f"the same weights: {_REMEDY}",
                )
            )

    def _require_layer(self, layer: int) -> None:
        if not 0 <= layer < len(self.weight):
            raise ValueError(f"the lens has layers 0 to {len(self.weight) - 1}, got {layer}")

    def _other_weights(self, bridge: ReadableModel) -> str | None:
        if self.fingerprint == UNKNOWN:
            return None
        kind, _, _ = self.fingerprint.rpartition(" ")
        if not kind:
            return weights_mismatch(bridge, self.fingerprint, "lens", self.settings, _REMEDY)
        found = f"{kind} {unembedding_hash(bridge)}"
        return None if found == self.fingerprint else f"weights {found}: {_REMEDY}"

    def inverse(self, layer: int) -> Float[Tensor, "d_model d_model"]:
        """`P` that carries a direction at the last point back to `layer`: `d P linear ~ d`.

        Raises `ValueError` for a layer that the lens does not have.
        """
        self._require_layer(layer)
        weight = self.weight[layer]
        return carry_back(torch.eye(len(weight)).to(weight) + weight)

    def save(self, path: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write one safetensors file, in half precision unless another `dtype` is given.

        Maps or biases with values beyond the range of `dtype` keep their own precision.

        Raises `ValueError` for a `dtype` that is not a floating-point one; `OSError` if the file
        cannot be written.
        """
        rest = {"fingerprint": self.fingerprint, "settings": dict(self.settings)}
        tensors = {name: narrowed(getattr(self, name), dtype) for name in ("weight", "bias")}
        save_tensors(path, tensors, kind="lens", rest=rest)

    @classmethod
    def load(cls, path: str | Path) -> "AffineLens":
        """Read what `save` wrote, in float32.

        Raises `FileNotFoundError` if there is no file, `ValueError` if it is of another kind.
        """
        tensors, rest = load_tensors(path, kind="lens")
        return restored(cls, path, rest | widened(tensors))


def carry_back(linear: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "d_model d_model"]:
    """`P` that undoes a map of rows: `d P linear ~ d`.

    `P` is the pseudo-inverse of the map without its smallest singular values, those below a
    hundredth of the largest, whose directions would be stretched without bound.
    """
    wide = linear.cpu().double()  # not every device has float64
    return torch.linalg.pinv(wide, rtol=_SMALLEST_SINGULAR).to(linear)
