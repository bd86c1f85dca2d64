"""Affine lenses: a linear map per layer from the residual stream to the last residual point.

The raw logit lens reads a middle layer in the coordinates of the last; a map fitted between them
lets it speak (Belrose et al. 2023, the tuned lens; Din et al. 2023, "Jump to Conclusions"). The fit
is closed: ridge regression from streamed normal equations.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from .adapter import require_readable, residuals
from .points import select_points
from .token_batch import TextOrTokens, TokenBatch, token_batch

_FORMAT = "lens_interventions.AffineLens/1"
# Ridges tried, relative to a coordinate's own variance.
_RIDGES = tuple(10.0**exponent for exponent in range(-8, 2))


@dataclass(frozen=True)
class AffineLens:
    """`T_l(r) = r + r A_l + b_l`, the identity at the last point.

    Attributes:
        weight: `[layer, d_model, d_model]`, `A`.
        bias: `[layer, d_model]`, `b`.
        fingerprint: of the model it was fitted for, see `fingerprint`; it is refused on others.
        settings: what it was fitted on: model, numbers of tokens, ridge per layer.
    """

    weight: Float[Tensor, "layer d_model d_model"] = field(repr=False)
    bias: Float[Tensor, "layer d_model"] = field(repr=False)
    fingerprint: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How a trajectory names it."""
        return f"affine lens from {self.settings.get('tokens')} tokens"

    def __call__(
        self, residual: Float[Tensor, "*row d_model"], layer: int
    ) -> Float[Tensor, "*row d_model"]:
        """`T_l(r[l])`."""
        weight = self.weight[layer].to(residual.device, residual.dtype)
        return residual + residual @ weight + self.bias[layer].to(residual.device, residual.dtype)

    def require_fits(self, bridge: TransformerBridge) -> None:
        """Raise `ValueError` unless the lens was fitted for this bridge's weights."""
        found = fingerprint(bridge)
        if found != self.fingerprint:
            raise ValueError(
                f"this lens was fitted for {self.settings.get('model')} with weights "
                f"{self.fingerprint}, the bridge is {bridge.cfg.model_name} with weights {found}: "
                "fit one with fit_affine_lens"
            )

    def save(self, path: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write one safetensors file, in half precision unless another `dtype` is given."""
        rest = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
        }
        tensors = {"weight": self.weight.to(dtype), "bias": self.bias.to(dtype)}
        save_file(tensors, str(path), metadata={"lens": json.dumps(rest)})

    @classmethod
    def load(cls, path: str | Path) -> "AffineLens":
        """Read what `save` wrote, in float32.

        Raises `FileNotFoundError`, and `ValueError` for any other kind of file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no lens at {path}")
        try:
            with safe_open(str(path), framework="pt") as file:
                rest = json.loads((file.metadata() or {}).get("lens", "{}"))
                if rest.get("format") != _FORMAT:
                    raise ValueError(f"{path} is a safetensors file, but not one of a lens")
                weight, bias = (file.get_tensor(name).float() for name in ("weight", "bias"))
        except SafetensorError as error:
            raise ValueError(f"{path} is not a saved lens: {error}") from error
        return cls(weight, bias, rest["fingerprint"], rest["settings"])


def fingerprint(bridge: TransformerBridge) -> str:
    """A hash of a sample of every parameter, made in milliseconds: tells weights apart."""
    hashed = hashlib.sha256(str(bool(bridge.compatibility_mode)).encode())
    for name, parameter in sorted(bridge.original_model.named_parameters()):
        sample = parameter.detach().reshape(-1)[:64].double().cpu().numpy()
        hashed.update(f"{name}{tuple(parameter.shape)}".encode())
        hashed.update(sample.tobytes())
    return hashed.hexdigest()[:16]


@torch.no_grad()
def fit_affine_lens(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    window: int = 512,
    skip_first: int = 1,
    holdout: int = 10,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> AffineLens:
    """Fit a map per layer by ridge regression, in one pass over any amount of text.

    Minimizes `sum_i |r[L]_i - T_l(r[l]_i)|² / |r[L]_i|²` with a ridge that draws `T_l` to the
    identity: the final norm makes the length of a residual irrelevant, so every position counts
    the same. Only the normal equations are held, `[layer, d_model, d_model]` in float64, for the
    fit and for the held-out windows; the result does not depend on how texts are batched.
    Coordinates are standardized, as a few of a llama-like model's are thousands of times larger
    than the rest; directions in which nothing varies are left alone by the ridge.

    **Arguments:**

    - `texts`: any iterable, read once. Each is read in windows of `window` tokens.
    - `skip_first`: leave out this many tokens of every window: the first is an outlier, at which
        attention rests.
    - `holdout`: every so-manieth window is not fitted to but used to choose the ridge per layer.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.

    Raises `ValueError` with fewer windows than `holdout`, and what `require_readable` raises.
    """
    require_readable(bridge)
    n_layers, device = int(bridge.cfg.n_layers), bridge.W_U.device
    labels = select_points(n_layers)
    fitted, held_out = (_NormalEquations(n_layers, int(bridge.cfg.d_model), device) for _ in "ab")
    windows = 0
    bar = tqdm(disable=not progress, unit="token", desc="fitting")
    for text in texts:
        batch = token_batch(bridge, text, prepend_bos=prepend_bos, any_length=True)
        for row, mask in zip(batch.tokens, batch.mask, strict=True):
            for piece in row[mask].split(window):
                if len(piece) <= skip_first:
                    continue
                part = TokenBatch(piece[None], torch.ones_like(piece[None], dtype=torch.bool))
                streams = [r[0, skip_first:] for r in residuals(bridge, part, labels)]
                windows += 1
                equations = held_out if windows % holdout == 0 else fitted
                equations.add(streams)
                bar.update(len(piece))
    bar.close()
    if windows < holdout:
        raise ValueError(
            f"{windows} windows of text leave none to choose the ridge on: give more text, or a "
            f"smaller window or holdout than {window} and {holdout}"
        )
    weights, biases, ridges = zip(
        *(fitted.solve(layer, held_out) for layer in range(n_layers)), strict=True
    )
    dtype = bridge.W_U.dtype if bridge.W_U.dtype == torch.float64 else torch.float32
    return AffineLens(
        torch.stack(weights).to("cpu", dtype),
        torch.stack(biases).to("cpu", dtype),
        fingerprint(bridge),
        {
            "model": str(bridge.cfg.model_name),
            "tokens": fitted.n,
            "held_out_tokens": held_out.n,
            "window": window,
            "skip_first": skip_first,
            "ridges": ridges,
        },
    )


class _NormalEquations:
    """Weighted moments of `[r[l], 1]` and of what the last point adds to `r[l]`, per layer."""

    def __init__(self, n_layers: int, d_model: int, device: torch.device) -> None:
        self.n = 0
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        # One more coordinate, constantly 1, carries the bias.
        self.xx = torch.zeros(n_layers, d_model + 1, d_model + 1, **options)
        self.xy = torch.zeros(n_layers, d_model + 1, d_model, **options)
        self.yy = torch.zeros(n_layers, d_model, **options)

    def add(self, streams: Sequence[Float[Tensor, "pos d_model"]]) -> None:
        last = streams[-1].double()
        length = last.norm(dim=-1, keepdim=True)
        scale = 1 / length.where(length > 0, 1)
        self.n += len(last)
        for layer, stream in enumerate(streams[:-1]):
            x = stream.double()
            y = (last - x) * scale
            x = torch.cat([x, torch.ones_like(scale)], dim=-1) * scale
            self.xx[layer].addmm_(x.T, x)
            self.xy[layer].addmm_(x.T, y)
            self.yy[layer] += y.square().sum(0)

    def solve(
        self, layer: int, held_out: "_NormalEquations"
    ) -> tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"], float]:
        """`A`, `b` and the ridge whose held-out error is least."""
        spread = self.xx[layer].diagonal().sqrt()
        unit = torch.where(spread > 0, 1 / spread, 0)  # a coordinate that is always 0 stays out
        values, vectors = torch.linalg.eigh(unit[:, None] * self.xx[layer] * unit)
        projected = vectors.T @ (unit[:, None] * self.xy[layer])
        back = unit[:, None] * vectors
        candidates = []
        for ridge in _RIDGES:
            solution = back @ (projected / (values.clamp(min=0) + ridge)[:, None])
            # Squared error from the moments: yy - 2 s·xy + s·xx·s.
            error = held_out.yy[layer].sum() - 2 * (solution * held_out.xy[layer]).sum()
            error = error + (solution * (held_out.xx[layer] @ solution)).sum()
            candidates.append((float(error), ridge, solution))
        _, ridge, best = min(candidates, key=lambda candidate: candidate[0])
        return best[:-1], best[-1], ridge
