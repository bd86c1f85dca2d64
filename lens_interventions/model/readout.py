"""What the library needs to know about the inside of a `TransformerBridge`.

Everything model-specific that a lens or a patch uses goes through here: the readout (final norm,
unembedding, output transform), the embedding as the model feeds it, and the residual stream.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.exceptions import StopAtLayerException
from transformer_lens.tools.analysis import logit_lens as transformer_lens_logit_lens
from transformers import DynamicCache

from .points import FINAL, hook_name
from .tokens import TokenBatch

Norm = Literal["full", "pre_affine"]

# Rows of logits that are held at a time.
LOGIT_ROWS = 128

# Texts up to this long go through the blocks whole, longer ones this many rows at a time.
_WHOLE = 512
_CHUNK_ROWS = 128

# Bridges whose readout was checked against their own logits, with the state it was checked in.
_checked: WeakKeyDictionary[TransformerBridge, bool] = WeakKeyDictionary()


@contextmanager
def without_hooks(hook_points: Iterable[HookPoint]) -> Iterator[None]:
    """Run modules without the hooks that a user has put on them; the hooks come back after.

    Permanent hooks stay: some architectures are adapted by them.
    """
    points = [point for point in hook_points if has_temporary_hooks(point)]
    saved = [(point, point._forward_hooks, point._backward_hooks) for point in points]
    try:
        for point, *directions in saved:
            permanent = {h.hook.id for h in (*point.fwd_hooks, *point.bwd_hooks) if h.is_permanent}
            point._forward_hooks, point._backward_hooks = (
                OrderedDict((key, fn) for key, fn in hooks.items() if key in permanent)
                for hooks in directions
            )
        yield
    finally:
        for point, forward_hooks, backward_hooks in saved:
            point._forward_hooks, point._backward_hooks = forward_hooks, backward_hooks


def has_temporary_hooks(point: HookPoint) -> bool:
    """Whether a hook is on that `reset_hooks` would take off."""
    return any(not handle.is_permanent for handle in (*point.fwd_hooks, *point.bwd_hooks))


def require_readable(bridge: TransformerBridge) -> None:
    """Refuse a model whose logits are not `ln_final -> unembed` of its last residual point.

    The judgement and its reasons are TransformerLens's `logit_lens`, asked once for each bridge on
    four tokens, without the hooks that the user may have on.

    Raises `NotImplementedError` (encoder-decoder and encoder-only models), or `ValueError`, also
    for a model in training mode.
    """
    if not isinstance(bridge, TransformerBridge):
        raise TypeError(
            f"expected a TransformerBridge, got {type(bridge).__name__}: boot one with "
            "lens_interventions.load_model or TransformerBridge.boot_transformers"
        )
    if bridge.original_model.training:
        raise ValueError("the model is in training mode, where dropout is on: call bridge.eval()")
    compatibility = bool(bridge.compatibility_mode)
    if _checked.get(bridge) == compatibility:
        return
    if getattr(bridge.cfg, "is_stateful", False):
        raise NotImplementedError(
            f"{bridge.cfg.architecture} carries a recurrent state between positions; lenses and "
            "next-token patches are defined for attention-only decoders"
        )
    tokens = torch.arange(4, device=bridge.cfg.device)[None] % int(bridge.cfg.d_vocab)
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        transformer_lens_logit_lens(bridge, tokens, layers=[-1], positions=None, top_k=1)
    _checked[bridge] = compatibility


@dataclass(frozen=True)
class Readout:
    """The way from a residual to logits: `transform(scale * (weight @ normalize(r) + bias))`.

    Attributes:
        norm: the model's final norm, or None.
        apply_affine: whether the norm's learned point-wise transformation is applied.
        weight: `[d_vocab, d_model]`, rows contiguous where the model stores them so.
        bias: `[d_vocab]`, None where it is zero.
        transform: what the model does to its logits (Gemma's soft cap, Cohere's scale).
        scale: the factor by which `transform` multiplies, None where it is not linear.
    """

    norm: nn.Module | None
    apply_affine: bool
    weight: Float[Tensor, "d_vocab d_model"]
    bias: Float[Tensor, " d_vocab"] | None
    transform: Callable[[Tensor], Tensor]
    scale: float | None

    def normalize(self, residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """The residual as it enters the unembedding."""
        residual = residual.to(self.weight.device, self.weight.dtype)
        if self.norm is None:
            return residual
        # Norm modules contract on [batch, pos, d_model]; their statistics are per vector.
        flat = residual.reshape(1, -1, residual.shape[-1])
        captured: list[Tensor] = []
        with without_hooks(m for m in self.norm.modules() if isinstance(m, HookPoint)):
            if self.apply_affine:
                return self.norm(flat).reshape(residual.shape)
            normalized = self.norm.get_submodule("hook_normalized")
            handle = normalized.register_forward_hook(
                lambda _module, _args, output: captured.append(output)
            )
            try:
                self.norm(flat)
            finally:
                handle.remove()
        return captured[0].to(residual.dtype).reshape(residual.shape)

    def removes_mean(self) -> bool:
        """Whether adding a constant to all of a residual changes nothing, as under a LayerNorm."""
        d_model = self.weight.shape[-1]
        ramp = torch.linspace(-1, 1, d_model, dtype=self.weight.dtype, device=self.weight.device)
        # Shifted by its own size the ramp is another one, far beyond any rounding.
        before, after = self.normalize(ramp), self.normalize(ramp + 1)
        return torch.allclose(before, after, rtol=0, atol=0.1 * float(before.abs().max()))

    def logits(
        self,
        normalized: Float[Tensor, "*row d_model"],
        out: Float[Tensor, "row d_vocab"] | None = None,
    ) -> Float[Tensor, "*row d_vocab"]:
        """Logits of normalized residuals, the model's own at its last point.

        `out` (rows flattened, no gradient) receives the product, so that chunks share a buffer.
        """
        if out is None:
            logits = normalized @ self.weight.T
        else:
            logits = torch.mm(normalized.reshape(-1, normalized.shape[-1]), self.weight.T, out=out)
            logits = logits.view(*normalized.shape[:-1], -1)
        if self.bias is not None:
            logits = logits + self.bias if out is None else logits.add_(self.bias)
        return logits if self.scale == 1 else self.transform(logits)

    def __call__(self, residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_vocab"]:
        """Logits of a residual."""
        return self.logits(self.normalize(residual))


def readout(bridge: TransformerBridge, *, norm: Norm = "full") -> Readout:
    """The model's own readout; with `norm="pre_affine"` without the final norm's affine part.

    The post reads the latter, which TransformerLens caches as `ln_final.hook_normalized`.

    Raises what `require_readable` raises, `ValueError` for an unknown norm.
    """
    if norm not in ("full", "pre_affine"):
        raise ValueError(f"norm must be 'full' or 'pre_affine', got {norm!r}")
    require_readable(bridge)
    has_norm = bridge.cfg.normalization_type is not None
    bias = bridge.b_U.detach()
    transform = bridge.adapter.apply_output_logits_transform
    return Readout(
        norm=bridge.ln_final if has_norm else None,
        apply_affine=norm == "full",
        weight=bridge.W_U.detach().T,
        bias=bias if bool(bias.any()) else None,
        transform=transform,
        scale=_linear_scale(transform),
    )


def _linear_scale(transform: Callable[[Tensor], Tensor]) -> float | None:
    """The factor of a transform that multiplies by one number, else None."""
    values = torch.tensor([1.0, -3.0, 100.0, 1e4], dtype=torch.float64)
    changed = transform(values)
    linear = torch.allclose(changed, values * changed[0], rtol=1e-6, atol=0)
    return float(changed[0]) if linear else None


@dataclass(frozen=True)
class Embedding:
    """Vectors that stand for tokens: `scale * weight[id]`, as the model feeds them, or carried on.

    Attributes:
        weight: `[d_vocab, d_model]`, TransformerLens's `W_E`.
        scale: what the model multiplies by (the square root of d_model in Gemma), else 1.
        carry: `[d_model, d_model]`, takes the vectors to other coordinates, if given.
    """

    weight: Float[Tensor, "d_vocab d_model"]
    scale: float
    carry: Float[Tensor, "d_model d_model"] | None = None

    def __call__(self, ids: Int[Tensor, "*row"]) -> Float[Tensor, "*row d_model"]:
        """Embeddings of token ids."""
        return self._carried(self.weight[ids])

    def mean(self, probabilities: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row d_model"]:
        """The expected embedding of a token drawn with these probabilities."""
        return self._carried(probabilities.to(self.weight.dtype) @ self.weight)

    def _carried(self, vectors: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        vectors = vectors * self.scale
        return vectors if self.carry is None else vectors @ self.carry


def embedding(bridge: TransformerBridge) -> Embedding:
    """The model's token embedding, with the factor it applies, measured on four tokens.

    Raises `NotImplementedError` where the model does more to an embedding than multiply it.
    """
    weight = bridge.W_E.detach()
    tokens = torch.arange(4, device=weight.device)[None] % len(weight)
    with torch.no_grad(), without_hooks(bridge.hook_points()):
        fed = _capture(bridge, TokenBatch(tokens, tokens >= 0), ["embed.hook_out"])[0]
    rows = weight[tokens]
    scale = float((fed * rows).sum() / (rows * rows).sum())
    # A half-precision model rounds its factor and its products.
    tolerance = 1e-5 if weight.dtype in (torch.float32, torch.float64) else 2e-2
    if not torch.allclose(fed, rows * scale, rtol=tolerance, atol=tolerance * float(fed.std())):
        raise NotImplementedError(
            f"{bridge.cfg.architecture} transforms its token embeddings before the first block, so "
            "a row of W_E is not what it feeds: use the unembedding (embedding='W_U')"
        )
    return Embedding(weight, 1.0 if abs(scale - 1) < tolerance else scale)


def residuals(
    bridge: TransformerBridge, batch: TokenBatch, labels: Iterable[str], **forward: Any
) -> list[Float[Tensor, "batch pos d_model"]]:
    """The residual stream at the given points, `[batch, pos, d_model]` each.

    Runs the bridge with the user's hooks on, and stops at the last point: nothing is unembedded.
    `forward` is passed on to the bridge.

    Raises `ValueError` where the model has no such point (blocks whose attention and MLP run in
    parallel have no middle), or when the batch is padded on the left.
    """
    if batch.left_padded:
        # The models' own masks let padded rows see nothing, whose NaN then reaches real tokens.
        raise ValueError("pad on the right: a causal model needs no mask for padding there")
    n_layers = int(bridge.cfg.n_layers)
    names = [hook_name(label, n_layers) for label in labels]
    missing = [name for name in names if name not in bridge.hook_dict]
    if missing:
        raise ValueError(
            f"{bridge.cfg.architecture} has no {missing[0]}: its blocks run attention and MLP in "
            "parallel or are not attention blocks; read it with incl_mid=False"
        )
    return _capture(bridge, batch, names, **forward)


def residual_chunks(
    bridge: TransformerBridge, batch: TokenBatch, labels: Sequence[str]
) -> Iterator[tuple[int, dict[str, Float[Tensor, "batch chunk d_model"]]]]:
    """`residuals` by label, of a long text a chunk of columns at a time, with its first column.

    Neither the residual stream of the whole text nor its attention scores are held, only the keys
    and values. A short text is one chunk, and so is any text while there are hooks on the bridge,
    which may have been made for the whole.
    """
    width = batch.tokens.shape[1]
    hooked = any(map(has_temporary_hooks, bridge.hook_points()))
    if width <= _WHOLE or hooked or not _fills_cache(bridge):
        yield 0, dict(zip(labels, residuals(bridge, batch, labels), strict=True))
        return
    cache = DynamicCache()
    step = max(1, _CHUNK_ROWS // len(batch.tokens))
    for start in range(0, width, step):
        # Padding on the right is run like any token, and read by nobody.
        tokens = batch.tokens[:, start : start + step]
        part = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
        streams = residuals(bridge, part, labels, past_key_values=cache, use_cache=True)
        yield start, dict(zip(labels, streams, strict=True))


def _fills_cache(bridge: TransformerBridge) -> bool:
    """Whether a run in two pieces is the run as a whole.

    Some pairs of transformers and TransformerLens leave the cache empty, silently.
    """
    tokens = torch.arange(4, device=bridge.cfg.device)[None] % int(bridge.cfg.d_vocab)
    cache = DynamicCache()
    for piece in tokens.split(2, dim=-1):
        residuals(
            bridge, TokenBatch(piece, piece >= 0), [FINAL], past_key_values=cache, use_cache=True
        )
    return cache.get_seq_length() == tokens.shape[1]


def _capture(
    bridge: TransformerBridge, batch: TokenBatch, names: list[str], **forward: Any
) -> list[Tensor]:
    """Activations at hooks given in the order in which they fire; the run stops at the last."""
    captured: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook_fn(tensor: Tensor, hook: HookPoint) -> None:
            captured[name] = tensor
            if len(captured) == len(names):
                raise StopAtLayerException(tensor)

        return hook_fn

    with bridge.hooks(fwd_hooks=[(name, keep(name)) for name in names]):
        # The model's own cache stays on: TransformerLens 4.3 cannot run OLMo 2 in half precision
        # without it.
        bridge(batch.tokens, **forward)
    return [captured[name] for name in names]
