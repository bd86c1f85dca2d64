"""Attention of few rows to many cached keys, each key read once.

Several query heads may share one head of keys and values. The modules of transformers then repeat
keys and values for every query head, whatever kernel multiplies them. On the embedded model, in
which three query heads share keys, this takes most of a step's time from a few dozen texts on. Here
the query heads that share keys become rows of one head, in one call of torch's fused attention.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

GROUPED = "lens_interventions_grouped"
"""The name under which configurations of transformers find `grouped_attention`."""

_PLAIN = {"module", "query", "key", "value", "attention_mask", "scaling", "dropout", "kwargs"}


def grouped_attention(
    query: Float[Tensor, "batch head row d_key"],
    key: Float[Tensor, "batch kv_head key d_key"],
    value: Float[Tensor, "batch kv_head key d_value"],
    mask: Float[Tensor, "batch 1 row key"],
    scaling: float,
) -> Float[Tensor, "batch row head d_value"]:
    """`softmax(scaling * query @ key.T + mask) @ value`; query heads share key heads in groups."""
    batch, n_heads, n_rows, _ = query.shape
    group = n_heads // key.shape[1]
    attended = scaled_dot_product_attention(
        query.reshape(batch, key.shape[1], group * n_rows, -1),
        key,
        value,
        attn_mask=mask if n_rows == 1 else torch.cat([mask] * group, dim=2),
        scale=scaling,
    )
    return attended.reshape(batch, n_heads, n_rows, -1).transpose(1, 2).contiguous()


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The function that attention modules call: grouped, or their own if that does more."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    if (
        query.dtype == torch.float32
        and attention_mask is not None
        and attention_mask.shape[1] == 1
        and scaling is not None
        and _is_plain(eager)
        and all(options.get(name) is None for name in _further_arguments(eager))
    ):
        return grouped_attention(query, key, value, attention_mask, scaling), None
    return eager(module, query, key, value, attention_mask, scaling=scaling, **options)


@functools.cache
def _is_plain(eager: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether an architecture's own attention is softmax over scaled and masked products.

    It is tried on a module that has only its groups. An attention that reads more off its module,
    such as sinks or factors of its layer, fails there.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, rows, 4, generator=generator)
        for heads, rows in ((4, 2), (2, 5), (2, 5))
    )
    mask = torch.zeros(2, 1, 2, 5).masked_fill_(torch.ones(2, 5).triu(4) > 0, -1e9)
    module = SimpleNamespace(num_key_value_groups=2, training=False)
    if "repeat_kv" not in eager.__code__.co_names:
        key, value = (states.repeat_interleave(2, dim=1) for states in (key, value))
    try:
        # Scores large enough that a cap on them shows.
        own, _ = eager(module, query, key, value, mask, scaling=20.0, dropout=0.0)
    except (AttributeError, TypeError, RuntimeError):
        return False
    return torch.allclose(grouped_attention(query, key, value, mask, 20.0), own, rtol=0, atol=1e-4)


@functools.cache
def _further_arguments(eager: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(eager).parameters) - _PLAIN


AttentionInterface.register(GROUPED, _attention)
