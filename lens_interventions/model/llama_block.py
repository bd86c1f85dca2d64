"""The block of Llama and its kin, in fewer calls of torch.

At each step of decoding, the module of transformers makes 48 calls of torch from Python (counted by
a `TorchFunctionMode`, without reads of attributes), 7 of them products. The weights have then
driven all else out of the processor's caches, and a call takes several times as long as in a loop
of its own: on the embedded model and two cores of an Intel Xeon, what multiplies no weights takes a
third of a token's time. The block here makes the same products and 25 other calls.
"""

import inspect
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from .grouped_attention import grouped_attention

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_ACT = "act_fn"
_MLP = {"gate_proj", "up_proj", "down_proj", _ACT}

# What Llama's attention may be given. One that takes more, as Ministral 3's takes positions, does
# more, which a trial on few tokens need not show.
_ARGUMENTS = {
    "self",
    "hidden_states",
    "position_embeddings",
    "attention_mask",
    "cache",
    "past_key_values",
    "cache_position",
    "kwargs",
}

# Of a position's update. Rounding makes 1e-5 of it and less, another multiplier or norm 1e-2.
_TOLERANCE = 1e-3


class LlamaBlock(nn.Module):
    """A block that computes what a module of transformers with the parts of Llama's does.

    Norms of the root mean square, rotary positions, attention with heads that may share keys, and a
    gated MLP. `same_update` tells whether a module with these parts computes this.

    The parameters are read at each call. A product or norm that has got another forward by then, or
    lost its weight to a parametrization, is called as a module.

    **Arguments:**

    - `block`: a module for which `has_parts` is true. Its parts do not become parts of this one.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        # In containers, modules are not registered as parts.
        self._module = (block,)
        parts = _parts(block)
        attention, mlp = parts["self_attn"], parts["mlp"]
        products = {**_parts(attention), **_parts(mlp)}
        act: Any = products.pop(_ACT)
        self._activation = act.forward
        self._products = {name: (part, vars(part)) for name, part in products.items()}
        norms: list[Any] = [parts["input_layernorm"], parts["post_attention_layernorm"]]
        self._norms = [(norm, vars(norm), float(norm.variance_epsilon)) for norm in norms]
        of_attention: Any = attention
        self._d_head = int(of_attention.head_dim)
        self._layer = int(of_attention.layer_idx)
        self._scaling = float(of_attention.scaling)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch row d_model"],
        attention_mask: Shaped[Tensor, "batch 1 row key"] | None = None,
        **arguments: Any,
    ) -> Float[Tensor, "batch row d_model"]:
        """The residual stream after the block; keys and values go into the cache, if any.

        **Arguments:**

        - `hidden_states`: the residual stream before it.
        - `attention_mask`: added to the scores. Without one, or with one of another kind, the
            module itself runs.
        - `arguments`: what transformers gives a block besides. Of these, `position_embeddings` are
            used, and the cache, which is called `cache` from 5.24 on, and `past_key_values` before.
        """
        if attention_mask is None or not attention_mask.is_floating_point():
            return self._module[0](hidden_states, attention_mask=attention_mask, **arguments)
        n_rows = hidden_states.shape[1]
        normed = self._normed(hidden_states, 0)
        query, key, value = (self._product(name, normed) for name in ("q_proj", "k_proj", "v_proj"))
        n_kv_heads = key.shape[-1] // self._d_head
        both = torch.cat([query, key], dim=-1).view(len(query), n_rows, -1, self._d_head)
        heads = _rotated(both, *arguments["position_embeddings"]).transpose(1, 2)
        query, key = heads[:, :-n_kv_heads], heads[:, -n_kv_heads:]
        value = value.view(len(query), n_rows, n_kv_heads, self._d_head).transpose(1, 2)
        known = arguments.get("cache", arguments.get("past_key_values"))
        if known is not None:
            key, value = known.update(key, value, self._layer)
        attended = grouped_attention(query, key, value, attention_mask, self._scaling)
        resid = hidden_states + self._product("o_proj", attended.flatten(2))
        normed = self._normed(resid, 1)
        gate = self._activation(self._product("gate_proj", normed))
        return resid + self._product("down_proj", gate * self._product("up_proj", normed))

    def _normed(self, resid: Tensor, which: int) -> Tensor:
        module, attributes, epsilon = self._norms[which]
        weight = attributes["_parameters"].get("weight")
        if weight is None or "forward" in attributes:
            return module(resid)
        return functional.rms_norm(resid, resid.shape[-1:], weight, epsilon)

    def _product(self, name: str, x: Tensor) -> Tensor:
        module, attributes = self._products[name]
        parameters = attributes["_parameters"]
        weight = parameters.get("weight")
        if weight is None or "forward" in attributes:
            return module(x)
        return functional.linear(x, weight, parameters["bias"])


def _rotated(
    heads: Float[Tensor, "batch row head d_head"],
    cos: Float[Tensor, "_ row d_head"],
    sin: Float[Tensor, "_ row d_head"],
) -> Float[Tensor, "batch row head d_head"]:
    """Heads turned by their rows' angles; both halves have the same angles."""
    found, half = heads * cos[:, :, None], heads.shape[-1] // 2
    first, second = heads.chunk(2, -1)
    sin = sin[:, :, None, :half]
    found.narrow(-1, 0, half).addcmul_(second, sin, value=-1)
    found.narrow(-1, half, half).addcmul_(first, sin)
    return found


def has_parts(block: nn.Module) -> bool:
    """Whether a module of transformers has the parts of Llama's block, of the same types."""
    parts = _parts(block)
    if parts.keys() != _PARTS:
        return False
    attention, mlp = parts["self_attn"], parts["mlp"]
    products = _parts(attention) | _parts(mlp)
    if products.keys() != _PROJECTIONS | _MLP:
        return False
    products.pop(_ACT)
    norms = (parts["input_layernorm"], parts["post_attention_layernorm"])
    return (
        not any(module._parameters for module in (block, attention, mlp))
        # A subclass may do more, and a pruned product has its weight elsewhere.
        and all(type(part) is nn.Linear for part in products.values())
        and all(part._parameters.keys() == {"weight", "bias"} for part in products.values())
        and all(norm._parameters.keys() == {"weight"} for norm in norms)
        and all(hasattr(norm, "variance_epsilon") for norm in norms)
        and all(hasattr(attention, name) for name in ("head_dim", "layer_idx", "scaling"))
        and inspect.signature(type(attention).forward).parameters.keys() <= _ARGUMENTS
    )


@torch.no_grad()
def same_update(
    block: LlamaBlock, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
) -> bool:
    """Whether the block adds to the stream at each position what another one added.

    **Arguments:**

    - `args`, `kwargs`: what the other one got, without a cache.
    - `output`: what it returned.
    """
    resid = args[0] if args else kwargs["hidden_states"]
    if not isinstance(output, Tensor) or output.dtype != torch.float32:
        return False
    try:
        found = block(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
        return False  # such as for angles or masks of other shapes, or none
    # The first position's update may be a thousand times as large as the others'.
    error, update = (found - output).norm(dim=-1), (output - resid).norm(dim=-1)
    return bool((error < _TOLERANCE * update).all())


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of a module, without the components of TransformerLens around them."""
    return {
        name: part._modules.get("_original_component") or part
        for name, part in module._modules.items()
        if part is not None
    }
