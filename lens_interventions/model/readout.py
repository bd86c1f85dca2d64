"""The way from a residual to logits: final norm, unembedding and output transform of a model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from .capabilities import few_tokens, recall, refuse_training_mode
from .causal_stack import refuse_attention_to_later, require_causal_stack
from .exclusive import exclusive
from .hooks import hooked, keep, require_hooks, temporary_hooks, without_hooks
from .kinds import ReadableModel, architecture, output_transform
from .points import FINAL, hook_name
from .product import product
from .product_trials import is_faster
from .user_hooks import hooked_modules, lasting_hooks

Norm = Literal["full", "pre_affine"]

# Rows of logits that are held at a time.
LOGIT_ROWS = 128
# With fewer rows in all, a copy of the weight costs about as much as it saves.
_MANY_ROWS = 512

# Modules that some models of TransformerLens have after their last block.
_BETWEEN = {"mlm_head", "prediction_head", "project_out", "hc_head", "sigma_map", "classifier_ln"}
# Largest error of the readout relative to the spread of the model's own logits. Wrong readouts are
# off by all of it, bfloat16 by a few hundredths.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Readout:
    """The way from a residual to logits: `transform(weight @ normalize(r) + bias)`.

    Attributes:
        norm: the model's final norm, or None.
        apply_affine: whether the norm's learned point-wise transformation is applied.
        weight: `[d_vocab, d_model]`, with contiguous rows if the model stores them so.
        bias: `[d_vocab]`; None if it is zero.
        transform: the function that the model applies to its logits (Gemma's soft cap, Cohere's
            scale).
        scale: the factor by which `transform` multiplies; None if it is not linear.
        fast: whether to multiply by the faster product, see `for_rows`.
        constant: whether the weight wants no gradient, see `for_training`.
    """

    norm: nn.Module | None
    apply_affine: bool
    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None
    transform: Callable[[Tensor], Tensor]
    scale: float | None
    fast: bool = False
    constant: bool = False

    def for_rows(self, rows: int) -> "Readout":
        """The same readout, prepared to read about this many rows in all."""
        if rows < _MANY_ROWS:
            return self
        return replace(self, fast=is_faster(self.weight))

    def for_training(self) -> "Readout":
        """The same readout, prepared for many rows and gradients, without a trial of speed."""
        fast = is_faster(self.weight, known_faster=True)
        return replace(self, fast=fast, constant=True)

    def normalize(self, residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """The residual as it enters the unembedding."""
        residual = residual.to(self.weight.device, self.weight.dtype)
        if self.norm is None:
            return residual
        # Norm modules contract on [batch, pos, d_model]; their statistics are per vector.
        flat = residual.reshape(1, -1, residual.shape[-1])
        with without_hooks(m for m in self.norm.modules() if isinstance(m, HookPoint)):
            if self.apply_affine:
                return self.norm(flat).reshape(residual.shape)
            kept: dict[str, Tensor] = {}
            point: Any = self.norm._modules.get("hook_normalized")
            if point is None:
                raise NotImplementedError(
                    "the final norm cannot be read without its gain and shift: it is a "
                    f"{type(self.norm).__name__} without hook_normalized"
                )
            with temporary_hooks([(point, keep(kept, "normalized"))]):
                self.norm(flat)
        return kept["normalized"].to(residual.dtype).reshape(residual.shape)

    def possible(self) -> Bool[Tensor, " d_vocab"]:
        """Which tokens have finite logits: a bias of minus infinity excludes the others."""
        bias = self.bias if self.bias is not None else torch.zeros_like(self.weight[:, 0])
        return bias != -torch.inf

    @cached_property
    def mean_row(self) -> Float[Tensor, " d_model"]:
        """The mean row of the weight, over the tokens that are possible.

        It is computed once for each readout, since with a large vocabulary it takes longer than
        many products.
        """
        # Without a bias all rows count, and a selection would copy them.
        rows = self.weight if self.bias is None else self.weight[self.possible()]
        return rows.mean(0)

    def affine(self) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
        """Gain and shift of the final norm's learned point-wise transformation.

        They are found by applying the norm to vectors, so this holds for every kind of norm:
        without its affine part, `norm(-x) == -norm(x)`.
        """
        signs = torch.ones_like(self.weight[0])
        if self.norm is None:
            return signs, torch.zeros_like(signs)
        signs[1::2] = -1
        ahead, behind = self.normalize(signs), self.normalize(-signs)
        plain = replace(self, apply_affine=False).normalize(signs)
        return (ahead - behind) / (2 * plain), (ahead + behind) / 2

    def token_directions(
        self, weight: Float[Tensor, "*token d_model"]
    ) -> Float[Tensor, "*token d_model"]:
        """Directions in the residual stream along which tokens' logits rise above the average.

        This is the gradient of the logits, up to the size of the residual, by which the final norm
        divides. `weight` has rows of this readout's weight, or rows like them.
        """
        rows = (weight - self.mean_row) * self.affine()[0]
        return rows - rows.mean(-1, keepdim=True) if self.removes_mean() else rows

    def unit_directions(
        self, weight: Float[Tensor, "*token d_model"]
    ) -> Float[Tensor, "*token d_model"]:
        """`token_directions` of unit length."""
        return nn.functional.normalize(self.token_directions(weight), dim=-1)

    def removes_mean(self) -> bool:
        """Whether adding a constant to all of a residual changes nothing, as under a LayerNorm."""
        d_model = self.weight.shape[-1]
        ramp = torch.linspace(-1, 1, d_model, dtype=self.weight.dtype, device=self.weight.device)
        # A shift by its own size changes the ramp far more than rounding does.
        before, after = self.normalize(ramp), self.normalize(ramp + 1)
        return torch.allclose(before, after, rtol=0, atol=0.1 * float(before.abs().max()))

    def logits(
        self,
        normalized: Float[Tensor, "*row d_model"],
        out: Float[Tensor, "row d_vocab"] | None = None,
    ) -> Float[Tensor, "*row d_vocab"]:
        """Logits of normalized residuals; at the last residual point these are the model's own.

        `out` (rows flattened, no gradient) receives the product, so that chunks share a buffer.
        """
        rows = normalized.reshape(-1, normalized.shape[-1])
        logits = product(
            rows, self.weight, fast=self.fast, constant=self.constant, bias=self.bias, out=out
        )
        logits = logits.view(*normalized.shape[:-1], len(self.weight))
        return logits if self.scale == 1 else self.transform(logits)

    def __call__(self, residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_vocab"]:
        """Logits of a residual."""
        return self.logits(self.normalize(residual))


@exclusive
def readout(bridge: ReadableModel, *, norm: Norm = "full") -> Readout:
    """The model's own readout; `norm="pre_affine"` leaves out the final norm's affine part.

    The post leaves it out; TransformerLens caches the norm without it as
    `ln_final.hook_normalized`.

    Raises `TypeError` if the model is not a `ReadableModel`; `NotImplementedError` if it is
    recurrent or not a causal decoder; `ValueError` if its logits are not the final norm and the
    unembedding of its last residual, if a bridge is in training mode, or if `norm` is unknown.
    """
    if norm not in ("full", "pre_affine"):
        raise ValueError(f"norm must be 'full' or 'pre_affine', got {norm!r}")
    require_readable(bridge)
    return _readout(bridge, norm)


def _readout(bridge: ReadableModel, norm: Norm) -> Readout:
    has_norm = bridge.cfg.normalization_type is not None
    bias = bridge.b_U.detach()
    transform = output_transform(bridge)
    return Readout(
        norm=bridge.ln_final if has_norm else None,
        apply_affine=norm == "full",
        weight=bridge.W_U.detach().T,
        bias=bias if bool(bias.any()) else None,
        transform=transform,
        scale=_linear_scale(transform),
    )


def refuse_readout_hooks(bridge: ReadableModel) -> None:
    """Raise `ValueError` if there is a hook on the final norm or the unembedding.

    A `Readout` applies them without hooks, also to residuals that are not the last. Permanent hooks
    and hooks of torch act on the final norm, but not on the unembedding, of which only the matrix
    is read.
    """
    norm = hooked_modules(bridge, "ln_final", lasting=False)
    for name in (*norm, *hooked_modules(bridge, "unembed")):
        raise ValueError(
            f"there is a hook on {name}, which would not act: residuals are read through the final "
            "norm and the unembedding without hooks. Take it off for this call; hooks in the "
            "blocks act"
        )


def require_readable(bridge: ReadableModel) -> None:
    """Refuse a model whose logits are not `ln_final -> unembed` of its last residual point.

    The test runs once for each bridge on two texts of four tokens, without the user's hooks.
    Whether it attends to later tokens is not tried while lasting hooks are on it.

    Raises `NotImplementedError` if the model has an encoder, a recurrent state, attention to later
    tokens or no final norm, or runs its blocks more than once; `ValueError` if its logits are
    computed in another way, if a lasting hook fails on so few tokens, or if a bridge is in
    training mode.
    """
    refuse_training_mode(bridge)
    require_causal_stack(bridge)
    recall(
        bridge,
        "logits are ln_final and unembed of the last residual point",
        lambda: _tried_to_read(bridge),
    )


def _logits_of_few_tokens(bridge: ReadableModel) -> Tensor:
    tokens = few_tokens(bridge)
    try:
        return bridge(tokens).float()
    except IndexError as error:
        if not lasting_hooks(bridge):
            raise
        raise ValueError(
            f"a permanent hook, or a hook of torch on a module, failed on the {tokens.shape[1]} "
            f"tokens on which the model is tried ({error}): let it leave short texts as they are, "
            "or put it on for the call with bridge.hooks"
        ) from error


def _tried_to_read(bridge: ReadableModel) -> bool:
    name, modules = architecture(bridge), set(bridge._modules)
    if between := sorted(_BETWEEN & modules):
        raise ValueError(
            f"{name} has {between[0]} between its last block and the logits, which a lens "
            "would leave out"
        )
    if bridge.cfg.normalization_type is not None and "ln_final" not in modules:
        raise NotImplementedError(
            f"{name} has no final norm between its last block and the unembedding, and lenses read "
            "through one"
        )
    if len(bridge.b_U) != int(bridge.cfg.d_vocab):
        raise ValueError(
            f"{name} reads {int(bridge.cfg.d_vocab)} tokens and has logits for {len(bridge.b_U)}: "
            "a lens compares the logits of the tokens that are read"
        )
    last: list[Tensor] = []
    final = hook_name(FINAL, int(bridge.cfg.n_layers))
    require_hooks(bridge, [final])
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        with hooked(bridge, [(final, lambda resid, hook: last.append(resid))]):
            logits = _logits_of_few_tokens(bridge)
        if len(last) > 1:
            raise NotImplementedError(
                f"{name} runs its blocks {len(last)} times for a text; lenses and next-token "
                "patches are defined for models that run them once"
            )
        read = _readout(bridge, "full")
        resid, possible = last[0], read.possible()
        right = resid.ndim == 3 and resid.shape[-1] == read.weight.shape[1]
        if right:
            # In compatibility mode the logits are the model's own up to a constant at each
            # position.
            found, own = (
                values[..., possible] - values[..., possible].nanmean(-1, keepdim=True)
                for values in (read(resid).float(), logits)
            )
            # Values that are not numbers are located and refused where they are read.
            largest = float(own.nan_to_num(0, 0, 0).abs().max())
            atol = _TOLERANCE * largest
            right = torch.allclose(found, own, rtol=0, atol=atol, equal_nan=True)
            refuse_attention_to_later(bridge, logits, largest)
    if not right:
        raise ValueError(
            f"the logits of {name} are not ln_final -> unembed of the output of its last "
            "block: a lens would not read the model's predictions"
        )
    return True


def _linear_scale(transform: Callable[[Tensor], Tensor]) -> float | None:
    """The factor of a transform that multiplies by one number, else None."""
    values = torch.tensor([1.0, -3.0, 100.0, 1e4], dtype=torch.float64)
    changed = transform(values)
    linear = torch.allclose(changed, values * changed[0], rtol=1e-6, atol=0)
    return float(changed[0]) if linear else None


def refuse_nan(logits: Float[Tensor, "*row _"]) -> None:
    """Raise `ValueError` for logits of NaN, from which a test of the model could tell nothing."""
    if logits.isnan().any():
        raise ValueError(
            "the model's logits of random tokens are NaN: look for a weight that is, or for a "
            "half-precision overflow"
        )
