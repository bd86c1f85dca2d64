"""Refusing models that are not one causal stack of blocks under an unembedding."""

import torch
from jaxtyping import Float
from torch import Tensor

from .capabilities import few_tokens
from .kinds import ReadableModel, architecture
from .precision import is_half
from .product import product_dtype
from .user_hooks import lasting_hooks

# Largest change of logits by a later token, relative to the largest logit, by whether the model
# computes in half precision, where experts may round differently if they get other tokens.
_CAUSAL_TOLERANCE = {False: 1e-3, True: 0.03}
_ATTENDS_TO_LATER = (
    "{} attends to later tokens too; lenses and next-token patches are defined for causal models"
)


def require_causal_stack(bridge: ReadableModel) -> None:
    """Refuse a model that is not one causal stack of blocks under an unembedding, without a run.

    Raises `NotImplementedError` if the model has an encoder, a recurrent state or attention to
    later tokens, or is on several devices or offloaded.
    """
    name = architecture(bridge)
    if getattr(bridge.cfg, "n_devices", 1) > 1:
        raise NotImplementedError(
            f"{name} is spread over {bridge.cfg.n_devices} devices, and residuals and logits are "
            "read on one: load it without device_map"
        )
    if getattr(bridge.cfg, "is_stateful", False):
        raise NotImplementedError(
            f"{name} carries a recurrent state between positions; lenses and next-token "
            "patches are defined only for models without one"
        )
    if getattr(bridge.cfg, "attention_dir", "causal") != "causal":
        raise NotImplementedError(_ATTENDS_TO_LATER.format(name))
    if not {"blocks", "unembed"} <= set(bridge._modules):
        raise NotImplementedError(
            f"{name} has no single stack of blocks that an unembedding reads, as encoders and "
            "encoder-decoders have none"
        )
    if bridge.W_E.is_meta:
        raise NotImplementedError(
            f"{name} is offloaded, and its weights are on torch's meta device, without values: "
            "load it without offloading"
        )


def refuse_attention_to_later(
    bridge: ReadableModel, logits: Float[Tensor, "1 pos d_vocab"], largest: float
) -> None:
    """Raise `NotImplementedError` if `logits` of a few tokens change before a replaced token."""
    tokens, d_vocab = few_tokens(bridge), int(bridge.cfg.d_vocab)
    # A neighbour may be a special token as well, with nearly the same embedding.
    tokens[:, -1] = (tokens[:, -1] + d_vocab // 2) % d_vocab
    before, after = (values[:, :-1] for values in (logits, bridge(tokens).float()))
    atol = _CAUSAL_TOLERANCE[is_half(product_dtype(bridge.W_U))] * largest
    causal = torch.allclose(before, after, rtol=0, atol=atol, equal_nan=True)
    # A hook that stays may mix positions or draw numbers, and belongs to the user.
    if not causal and not lasting_hooks(bridge):
        raise NotImplementedError(_ATTENDS_TO_LATER.format(architecture(bridge)))
