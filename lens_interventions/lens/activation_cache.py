"""Residual streams that the user already has, in an `ActivationCache`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from transformer_lens import ActivationCache

from ..model.hooks import TOKENS, without_hooks
from ..model.kinds import ReadableModel
from ..model.points import FINAL, INPUT, hook_name
from ..model.residuals import residuals
from ..model.tokens import TokenBatch, token_batch

_SHOWN = 3  # points in a message


def cached_batch(
    bridge: ReadableModel,
    cache: ActivationCache,
    tokens: Tensor | None,
    attention_mask: Tensor | None,
) -> TokenBatch:
    """The tokens that a cache was made from: the given ones, or else those that it holds.

    Without `tokens`, attention patterns alone show that a cache holds only some positions.

    Raises `ValueError` if there are neither, if the cache holds other tokens than the given ones or
    only some of their positions, or if it alone has the ids and a conversion may have rounded them.
    """
    held = cache.cache_dict.get(TOKENS)
    if tokens is None:
        if held is None:
            raise ValueError(
                f"the cache does not hold the token ids ({TOKENS}): pass them as tokens="
            )
        if held.is_floating_point():
            raise ValueError(
                f"the cache holds the token ids as {held.dtype}, which may have rounded them: pass "
                "them as tokens="
            )
        keys = [
            pattern.shape[-1]
            for name, pattern in cache.cache_dict.items()
            if name.endswith(".attn.hook_pattern")
        ]
        if keys and max(keys) > held.shape[-1]:
            raise _some_positions(held.shape[-1], max(keys))
        tokens = held
    batch = token_batch(bridge, tokens, attention_mask=attention_mask)
    if held is not None:
        # A cache in half precision may have rounded its ids.
        given = batch.tokens.to(held.dtype)
        held = torch.atleast_2d(held).to(given.device)
        if _is_part(held, given):
            raise _some_positions(held.shape[1], given.shape[1])
        if held.shape != given.shape or ((held != given) & batch.mask).any():
            raise ValueError(
                "the cache was made from other tokens than those given: leave out tokens=, as it "
                "holds its own"
            )
    return batch


def _some_positions(n: int, of: int) -> ValueError:
    return ValueError(
        f"the cache holds {n} of {of} positions: a cache must hold them all, so make it without "
        "pos_slice, and not with keys and values of earlier tokens"
    )


def _is_part(held: Shaped[Tensor, "batch some"], given: Shaped[Tensor, "batch pos"]) -> bool:
    """Whether what is held are some neighbouring columns of what is given, and not all."""
    width = held.shape[1]
    if len(held) != len(given) or not 0 < width < given.shape[1]:
        return False
    runs = given.unfold(1, width, 1)
    return bool((runs == held[:, None]).all(-1).all(0).any())


def cached_residuals(
    bridge: ReadableModel, cache: ActivationCache, batch: TokenBatch, labels: Sequence[str]
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """The residual stream at the given points, by label, as the cache holds it.

    A cache with only `hook_resid_post` lacks the input point, which is then computed from the
    tokens.

    Raises `ValueError` if the cache does not hold a point, or holds it for other tokens or a model
    of another width.
    """
    n_layers, d_model = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    streams, missing = {}, []
    for label in labels:
        found = [name for name in _names(label, n_layers) if name in cache.cache_dict]
        if found:
            stream = cache.cache_dict[found[0]].to(bridge.cfg.device)
            streams[label] = stream if cache.has_batch_dim else stream[None]
        elif label == INPUT:
            with torch.no_grad(), without_hooks(bridge.hook_points()):
                (aligned,) = residuals(bridge, batch.padded_on("right"), [INPUT])
            row = torch.arange(len(aligned), device=aligned.device)
            streams[label] = aligned[row[:, None], batch.positions]
        else:
            missing.append(label)
    if missing:
        otherwise = f"or read what it holds: points={[*streams]}"
        if FINAL in missing:
            otherwise = (
                f"without stop_at_layer, or add {hook_name(FINAL, n_layers)} to a filter of your "
                f"own, since every point is compared with {FINAL}"
            )
        more = f" and {len(missing) - _SHOWN} more points" if len(missing) > _SHOWN else ""
        raise ValueError(
            f"the cache has no residual stream at {', '.join(missing[-_SHOWN:])}{more}: cache it "
            f"with run_with_cache(..., names_filter=lambda name: 'hook_resid' in name), {otherwise}"
        )
    for label, stream in streams.items():
        if stream.shape[:2] != batch.tokens.shape:
            raise ValueError(
                f"the cache's {label} has shape {tuple(stream.shape)}, which does not fit tokens "
                f"of shape {tuple(batch.tokens.shape)}: pass the tokens the cache was made from; "
                "a cache must hold all their positions, so make it without pos_slice"
            )
        if stream.shape[2:] != (d_model,):
            raise ValueError(
                f"the cache's {label} has shape {tuple(stream.shape)}, but the model's residual "
                f"stream has {d_model} dimensions: pass the model that the cache was made with"
            )
    return streams


def _names(label: str, n_layers: int) -> list[str]:
    """Every hook that carries a residual point: a block's output is the next block's input."""
    names = [hook_name(label, n_layers)]
    if label == FINAL:
        return [*names, f"blocks.{n_layers - 1}.hook_out"]
    layer, side = label.split("_")
    if side == "mid":
        return names
    names.append(f"blocks.{layer}.hook_in")
    if int(layer) > 0:
        names += [f"blocks.{int(layer) - 1}.hook_{side}" for side in ("resid_post", "out")]
    return names
