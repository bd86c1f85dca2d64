"""Direct logit attribution: what each component writes, read through the final norm.

The final residual stream is the sum of the outputs of the embedding, every attention layer and
every MLP. With the scale of the final norm held at that of the whole stream, the norm is linear, so
the logit of a token is a sum over components too (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"). TransformerLens takes the stream apart (`decompose_resid`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge

from ..model.attention_points import attention_points
from ..model.exclusive import exclusive
from ..model.hooks import hooks_as_found, last_logits_only
from ..model.points import FINAL, hook_name
from ..model.precision import at_least_float32, is_half
from ..model.product import product_dtype
from ..model.readout import LOGIT_ROWS, Readout, readout, refuse_readout_hooks
from ..model.tokens import TextOrTokens, token_batch
from ..model.user_hooks import has_user_hooks, moved_right
from ..model.vocabulary import NamedTokens, token_strings
from .cells import ids_of_texts
from .component_result import ComponentLogits

# Largest relative error of the sum of components, by whether weights are in half precision.
_TOLERANCE = {False: 1e-3, True: 5e-2}

Map = Callable[[Tensor], Tensor]


@exclusive
@torch.no_grad()
def component_logits(
    bridge: TransformerBridge,
    text_or_tokens: TextOrTokens,
    *,
    token: NamedTokens | None = None,
    against: NamedTokens | None = None,
    heads: bool = False,
    prepend_bos: bool | None = None,
    attention_mask: Tensor | None = None,
) -> ComponentLogits:
    """How many logits each component adds to a token, at every position.

    It measures only a component's direct effect on the output, and not its effect through later
    components. Logits are defined up to a constant, which `against` removes. They are those before
    a soft cap, such as Gemma 2's.

    **Arguments:**

    - `bridge`: a decoder whose stream is the sum of what attention layers and MLPs write. Hooks on
        what these write act.
    - `text_or_tokens`: a text, a list of texts of any lengths, or token ids. The outputs of all
        components are held in memory, `[component, batch, pos, d_model]`.
    - `token`: one token, as text or id, or one for each text; by default the model's own top guess
        at each position.
    - `against`: a token whose logits are subtracted, such as the wrong one of two answers, or one
        for each text.
    - `heads`: split each attention layer into its heads.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `attention_mask`: `[batch, pos]`, nonzero at real tokens, for an id tensor that is padded.

    **Returns:** a `ComponentLogits`.

    Raises `ValueError` if `token` or `against` is neither one token nor one for each text, if the
    text does not fit the model, if a hook is on the final norm or the unembedding, or anywhere
    while there is padding on the left, if the model is in training mode, if a component writes what
    is not finite, or if its logits are not the final norm and the unembedding of its last residual;
    `NotImplementedError` if the outputs of the components do not add up to the final residual
    stream, as when a hook writes to it, or those of the heads to the outputs of their layers.
    """
    read = readout(bridge)
    refuse_readout_hooks(bridge)
    batch = moved_right(
        bridge,
        token_batch(bridge, text_or_tokens, prepend_bos=prepend_bos, attention_mask=attention_mask),
    )
    named = {
        name: ids_of_texts(bridge, name, given, len(batch.tokens)).to(batch.tokens.device)
        for name, given in (("token", token), ("against", against))
        if given is not None
    }
    asked, other = named.get("token"), named.get("against")
    final_hook = hook_name(FINAL, int(bridge.cfg.n_layers))
    wanted = ("hook_embed", "hook_pos_embed", "hook_attn_out", "hook_mlp_out", "attn.hook_z")

    def is_wanted(name: str) -> bool:
        return name == final_hook or name.endswith(wanted if heads else wanted[:-1])

    # A causal model ignores padding on the right.
    options: dict[str, Any] = last_logits_only(bridge)
    with hooks_as_found(bridge):
        _, cache = bridge.run_with_cache(batch.tokens, names_filter=is_wanted, **options)
    final = cache[final_hook]
    parts = _parts(bridge, read, cache, final, heads)
    if asked is not None:
        targets = asked[:, None].expand_as(batch.tokens)
    else:
        guesses = [read(rows).argmax(-1) for rows in final.flatten(0, 1).split(LOGIT_ROWS)]
        targets = torch.cat(guesses).reshape(batch.tokens.shape)
    # Half precision loses too much in a sum.
    wide = at_least_float32(read.weight.dtype)
    direction = read.weight[targets].to(wide)
    if other is not None:
        direction = direction - read.weight[other][:, None]
    linear, shift = _frozen(read, final)
    values = [(linear(part) * direction).sum(-1) for part in parts.values()]
    constant = (shift * direction).sum(-1)
    if read.bias is not None:
        constant = constant + read.bias[targets]
        if other is not None:
            constant = constant - read.bias[other][:, None]
    found = torch.stack([*values, constant]) * (1.0 if read.scale is None else read.scale)
    tokens, targets, mask = batch.tokens.cpu(), targets.cpu(), batch.mask.cpu()
    ids = {*tokens.unique().tolist(), *targets.unique().tolist()}
    if other is not None:
        other = other.cpu()
        ids |= set(other.tolist())
    return ComponentLogits(
        components=(*parts, "bias"),
        logits=found.cpu().masked_fill(~mask, torch.nan),
        tokens=tokens.where(mask, -1),
        targets=targets.where(mask, -1),
        against=other,
        mask=mask,
        vocab=token_strings(bridge, ids),
    )


def _parts(
    bridge: TransformerBridge,
    read: Readout,
    cache: ActivationCache,
    final: Float[Tensor, "batch pos d_model"],
    heads: bool,
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """The output of each component by its label, in stream order."""
    try:
        stack, labels = cache.decompose_resid(return_labels=True)
    except KeyError as error:
        raise NotImplementedError(
            f"{bridge.cfg.architecture} has no {error.args[0]}, so its stream cannot be taken "
            "apart into what attention and MLPs write"
        ) from error
    precision = product_dtype(read.weight)
    _require_sum(
        bridge, precision, stack.sum(0), final, "components write", "the stream that is read out"
    )
    parts = dict(zip(labels, stack, strict=True))
    return _with_heads(bridge, precision, cache, parts) if heads else parts


def _with_heads(
    bridge: TransformerBridge,
    precision: torch.dtype,
    cache: ActivationCache,
    parts: Mapping[str, Float[Tensor, "batch pos d_model"]],
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """The same with the heads of each attention layer, and their bias, in its place."""
    points = attention_points(bridge, "z", range(len(bridge.blocks)))
    # Where values are of another width than keys, as in multi-head latent attention.
    found, own = cache[points[0]].shape[-2], int(bridge.cfg.n_heads)
    if found != own:
        raise NotImplementedError(
            f"TransformerLens takes the attention of {bridge.cfg.architecture} apart into {found} "
            f"heads, and it has {own}: leave heads out"
        )
    of_heads, names = cache.stack_head_results(return_labels=True)
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, head in zip(names, of_heads, strict=True):
        by_layer.setdefault(name[1:].split("H")[0], {})[name] = head
    split: dict[str, Tensor] = {}
    for label, part in parts.items():
        layer, _, kind = label.partition("_")
        if kind != "attn_out":
            split[label] = part
            continue
        written = by_layer[layer]
        rest = part - torch.stack(list(written.values())).sum(0)
        # A bias is the same everywhere; any other difference means that the heads' outputs were
        # changed.
        same = rest[:1, :1].expand_as(rest)
        of_layer = f"what layer {layer} does"
        _require_sum(bridge, precision, rest - same + part, part, "heads write", of_layer)
        rounding = 1e3 * torch.finfo(precision).eps * part.abs().max()
        bias = getattr(bridge.blocks[int(layer)].attn, "b_O", None)
        split |= written
        # In half precision, a bias may be smaller than what rounding may come to.
        if (bias is not None and bool(bias.any())) or rest.abs().max() > rounding:
            split[f"{layer}_attn_bias"] = rest
    return split


def _require_sum(
    bridge: TransformerBridge,
    precision: torch.dtype,
    found: Tensor,
    expected: Tensor,
    parts: str,
    whole: str,
) -> None:
    if not (found.isfinite().all() and expected.isfinite().all()):
        raise ValueError(
            f"what the {parts}, or {whole}, is not finite: look for a hook or weight with such "
            "values, or a half-precision overflow"
        )
    error, size = (found - expected).norm(dim=-1), expected.norm(dim=-1)
    # An ablated layer writes nothing but what rounding leaves.
    rounding = 10 * torch.finfo(precision).eps * size.max()
    if not bool((error <= _TOLERANCE[is_half(precision)] * size + rounding).all()):
        with_hooks = has_user_hooks(bridge)
        raise NotImplementedError(
            f"what the {parts} does not add up to {whole} in {bridge.cfg.architecture} (a relative "
            f"error of {float((error / size).max()):.2g}), so it cannot be attributed"
            + (": a hook on the bridge writes to the stream besides them" if with_hooks else "")
        )


def _frozen(
    read: Readout, final: Float[Tensor, "batch pos d_model"]
) -> tuple[Map, Float[Tensor, " d_model"]]:
    """The final norm with its scale held at that of `final`: a linear map, and what it adds."""
    if read.norm is None:
        return lambda part: part.to(read.weight), read.weight.new_zeros(final.shape[-1])
    gain, shift = read.affine()
    centred = read.removes_mean()
    wide = at_least_float32(read.weight.dtype)

    def centre(part: Tensor) -> Tensor:
        part = part.to(read.weight.device, wide)
        return part - part.mean(-1, keepdim=True) if centred else part

    plain = replace(read, apply_affine=False).normalize(final).to(wide)
    after, before = (each.norm(dim=-1, keepdim=True) for each in (plain, centre(final)))
    return lambda part: centre(part) * (after / before) * gain, shift
