"""Naive statistics from materialized logits, in float64, by numpy and scipy.

Shares no code with the package: the logits are TransformerLens's own readout of every point.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax
from scipy.stats import entropy, rankdata
from torch import Tensor, stack
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools import analysis

Array = NDArray[np.float64]


def point_logits(bridge: TransformerBridge, tokens: Tensor, *, incl_mid: bool = False) -> Array:
    """Logits `[point, batch, pos, d_vocab]` of every residual point."""
    if hasattr(analysis, "logit_lens"):
        result = analysis.logit_lens(bridge, tokens, positions=None, incl_mid=incl_mid)
        return result.values.detach().double().numpy()
    # TransformerLens 3.9 has none: its modules, one after the other.
    _, cache = bridge.run_with_cache(tokens)
    stacked, _ = cache.accumulated_resid(incl_mid=incl_mid, return_labels=True)
    read = [bridge.unembed(bridge.ln_final(resid)) for resid in stacked]
    logits = bridge.adapter.apply_output_logits_transform(stack(read))
    return logits.detach().double().numpy()


def ranks(logits: Array, ids: Array) -> Array:
    """How many logits are strictly larger than that of `ids`, for `[..., d_vocab]` and `[...]`."""
    # Smallest rank of negated values among ties: one plus the number of strictly larger logits.
    smallest = rankdata(-logits, method="min", axis=-1)
    return np.take_along_axis(smallest, ids[..., None], -1)[..., 0].astype(int) - 1


def log_probs(logits: Array, ids: Array) -> Array:
    """Log-probabilities of `ids`."""
    return np.take_along_axis(log_softmax(logits, axis=-1), ids[..., None], -1)[..., 0]


def entropies(logits: Array) -> Array:
    """Entropy of the softmax, nats."""
    return entropy(np.exp(log_softmax(logits, axis=-1)), axis=-1)


def kl(p_logits: Array, q_logits: Array) -> Array:
    """KL(p ‖ q), nats."""
    p, q = (np.exp(log_softmax(logits, axis=-1)) for logits in (p_logits, q_logits))
    return entropy(p, q, axis=-1)


def js(p_logits: Array, q_logits: Array) -> Array:
    """Jensen-Shannon divergence, nats."""
    p, q = (np.exp(log_softmax(logits, axis=-1)) for logits in (p_logits, q_logits))
    return jensenshannon(p, q, axis=-1) ** 2
