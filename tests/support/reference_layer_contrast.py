"""DoLa and SLED token by token, in numpy, from the formulas of the papers.

Shares no code with the package: each step runs the whole text anew, alone, and reads its layers by
TransformerLens's own lens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from transformer_lens.model_bridge import TransformerBridge

from tests.support.reference import point_logits

Array = NDArray[np.float64]
Rule = Callable[[Array, Array], Array]


def dola(last: Array, early: Array, alpha: float = 0.1) -> Array:
    """New logits `[d_vocab]` from those of the last layer and `[layer, d_vocab]` of others."""
    p = softmax(last)
    furthest = max(early, key=lambda logits: jensenshannon(p, softmax(logits)))
    q = softmax(furthest)
    return np.array(
        [
            np.log(a) - np.log(b) if a >= alpha * p.max() else -np.inf
            for a, b in zip(p, q, strict=True)
        ]
    )


def sled(last: Array, early: Array, rate: float = 2.0, scale: int = 10) -> Array:
    """The same by SLED."""
    p = softmax(last)
    kept = np.argsort(-last)[:scale]
    possible = np.isfinite(last)
    m = np.zeros((len(early), len(last)))
    for n, logits in enumerate(early):
        for i in kept:
            difference = (logits - last)[possible]
            gradient = (softmax(logits) - np.eye(len(last))[i])[possible]
            lengths = np.linalg.norm(difference) * np.linalg.norm(gradient)
            cosine = difference @ gradient / lengths if lengths else 0.0
            m[n, i] = max(cosine, 0.0) ** 2
    # Each layer's own estimate, and the layers' weights.
    latent = np.zeros(len(last))
    for n in range(len(early)):
        if m[n].sum() > 0:
            latent += m[n].sum() / m.sum() * (m[n] / m[n].sum())
    new = np.full(len(last), -np.inf)
    new[kept] = last[kept] - rate * (p[kept] - latent[kept])
    return new


def new_logits(
    bridge: TransformerBridge,
    tokens: Sequence[int],
    rule: Rule,
    layers: Sequence[int],
    last: Array | None = None,
) -> Array:
    """A rule's logits `[d_vocab]` at the end of a text; `last` in place of the model's own."""
    read = point_logits(bridge, torch.tensor([list(tokens)]))[:, 0, -1]
    return rule(read[-1] if last is None else last, read[list(layers)])


def decode(
    bridge: TransformerBridge,
    prompt: Sequence[int],
    rule: Rule,
    layers: Sequence[int],
    n_new: int,
    *,
    penalty: float = 1.0,
    last_logits: Callable[[list[int]], Array] | None = None,
) -> list[int]:
    """New tokens, each the likeliest by a rule, with a repetition penalty on its logits.

    `last_logits` gives the last layer's logits of a text, where they are not the model's own.
    """
    tokens = list(prompt)
    for _ in range(n_new):
        last = None if last_logits is None else last_logits(tokens)
        new = new_logits(bridge, tokens, rule, layers, last)
        for token in set(tokens):
            new[token] = new[token] / penalty if new[token] > 0 else new[token] * penalty
        tokens.append(int(new.argmax()))
    return tokens[len(prompt) :]
