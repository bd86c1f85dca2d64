"""The patch as a sampler would meet it: the text so far is recomputed for each position.

Shares no code with the package, only the fields of a patch and the bundled texts: hooks are plain
closures, random numbers come from Python integers.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.materials import prose
from tests.support.exact import arithmetic

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


def patched_logits(
    bridge: TransformerBridge,
    tokens: Tensor,
    patch: Any,
    *,
    prompt_length: int = 0,
    text_seed: int = 0,
    leak: bool = False,
    only_last: bool = False,
    unpatched: Callable[[tuple[int, ...]], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Logits `[pos, d_vocab]` of one unpadded text `[pos]`, each from a run on its own prefix.

    With `leak`, also the predicting position is patched, with the token that it should predict.
    With `only_last`, those at the last position alone, `[1, d_vocab]`. Who asks for longer and
    longer texts gives `unpatched_ends` of them all.
    """
    layers = (patch.layer,) if isinstance(patch.layer, int) else patch.layer
    vectors = _vectors(bridge, patch.embedding)
    if patch.scale == "deviation":
        _mean_residuals(bridge, arithmetic())  # found before there are hooks on the bridge
    # Before there are hooks on the bridge: what it makes of each prefix without a patch.
    unpatched = unpatched or unpatched_ends(bridge, patch)
    prefixes = [tuple(tokens[: i + 1].tolist()) for i in range(len(tokens) - 1)]
    closed = [
        patch.gate_on == "output"
        and -unpatched(prefix)[0].log_softmax(-1)[tokens[len(prefix)]] < patch.gate
        for prefix in prefixes
    ]
    own = [unpatched(prefix)[1] for prefix in prefixes if callable(patch.source)]
    rows = []
    for t in range(len(tokens) - 1 if only_last else 0, len(tokens)):
        patched = [
            i
            for i in range(t + 1 if leak and t + 1 < len(tokens) else t)
            if not closed[i]
            and i >= patch.first_position
            and _chosen(patch.positions, i, prompt_length)
            and (patch.window is None or i >= t - patch.window)
        ]

        def hook_at(layer: int, patched: list[int] = patched) -> Any:
            def hook_fn(resid: Tensor, hook: Any) -> Tensor:
                out = resid.clone()
                for i in patched:
                    out[0, i] = _patched_row(
                        bridge, patch, layer, vectors, resid[0, i], tokens, i, text_seed, own
                    )
                return out

            return hook_fn

        hooks = [(f"blocks.{layer}.hook_resid_pre", hook_at(layer)) for layer in layers]
        rows.append(bridge.run_with_hooks(tokens[None, : t + 1], fwd_hooks=hooks)[0, -1])
    return torch.stack(rows)


def unpatched_ends(
    bridge: TransformerBridge, patch: Any
) -> Callable[[tuple[int, ...]], tuple[Tensor, Tensor]]:
    """What the bridge makes of the end of a text without a patch, found once for each text.

    Logits `[d_vocab]` and the residual `[d_model]` that `patch.source` reads, if it is one that
    reads a layer.
    """
    point = _point(bridge, patch.source.layer if callable(patch.source) else 0)

    @functools.cache
    def ends(text: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        logits, cache = bridge.run_with_cache(torch.tensor([text]), names_filter=point)
        return logits[0, -1], cache[point][0, -1]

    return ends


def _chosen(positions: Any, i: int, prompt_length: int) -> bool:
    if positions == "all":
        return True
    if positions == "generated":
        return i + 1 >= prompt_length
    return i in positions


def _patched_row(
    bridge: TransformerBridge,
    patch: Any,
    layer: int,
    vectors: Tensor,
    r: Tensor,
    tokens: Tensor,
    i: int,
    text_seed: int,
    own: list[Tensor],
) -> Tensor:
    logits = bridge.adapter.apply_output_logits_transform(
        bridge.unembed(bridge.ln_final(r[None, None]))
    )
    log_probs = logits[0, 0].log_softmax(-1)
    if (
        patch.gate is not None
        and patch.gate_on == "lens"
        and -log_probs[tokens[i + 1]] < patch.gate
    ):
        return r

    if callable(patch.source):  # BackPatch
        e = own[i]
    elif patch.source == "direction":
        bits = [_draw(patch.seed, text_seed, i, j) >> 10 for j in range(2 * len(r))]
        u = [(b + 0.5) / 2**53 for b in bits]
        normal = [
            math.sqrt(-2 * math.log(u[2 * j])) * math.cos(2 * math.pi * u[2 * j + 1])
            for j in range(len(r))
        ]
        e = torch.tensor(normal, dtype=r.dtype)
        e = e / e.norm() * vectors[tokens[i + 1]].norm()
    elif patch.source == "average":
        e = vectors.sum(0) / len(vectors)
        e = e / e.norm() * vectors[tokens[i + 1]].norm()
    elif patch.source == "zero":
        e = torch.zeros_like(r)
    else:
        if patch.source == "true":
            written = tokens[i + 1]
        elif patch.source == "current":
            written = tokens[i]
        elif patch.source == "guess":
            written = log_probs.argmax()
        elif patch.source == "random":
            written = _draw(patch.seed, text_seed, i) % bridge.cfg.d_vocab
        elif patch.source == "shuffled":
            if i == 0:
                return r
            written = tokens[_draw(patch.seed, text_seed, i) % i + 1]
        elif patch.source == "previous":
            if i == 0:
                return r
            written = tokens[i - 1]
        else:
            raise NotImplementedError(f"the source {patch.source!r}")
        e = vectors[written]

    def scaled(e: Tensor) -> Any:
        if patch.scale == "raw":
            return 1.0
        part = r - _mean_residuals(bridge, arithmetic())[layer] if patch.scale == "deviation" else r
        return part.norm() / (e.norm() or 1.0)

    s = scaled(e)
    a = patch.strength
    if patch.mode == "interpolate":
        return (1 - a) * r + a * s * e
    if patch.mode == "add":
        return r + a * s * e
    if patch.mode != "correct":
        raise NotImplementedError(f"the mode {patch.mode!r}")
    expected = log_probs.exp() @ vectors
    if patch.source == "true" or callable(patch.source):
        return r + a * s * (e - expected)
    true = vectors[tokens[i + 1]]
    distance = (scaled(true) * (true - expected)).norm()
    return r + a * distance * (e - expected) / ((e - expected).norm() or 1.0)


def _point(bridge: TransformerBridge, layer: int) -> str:
    last = bridge.cfg.n_layers - 1
    return f"blocks.{last}.hook_resid_post" if layer > last else f"blocks.{layer}.hook_resid_pre"


def _vectors(bridge: TransformerBridge, embedding: str) -> Tensor:
    """What stands for each token, `[d_vocab, d_model]`."""
    if embedding == "W_U":
        return bridge.W_U.T
    if embedding == "W_E_centred":
        fed = _vectors(bridge, "W_E")
        return fed - fed.sum(0) / len(fed)
    if hasattr(bridge, "pos_embed"):
        return bridge.W_E
    # Without position embeddings, what enters the first block is the embedding as it is fed.
    every = torch.arange(bridge.cfg.d_vocab)[:, None]
    return bridge(every, stop_at_layer=0)[:, 0]


@functools.lru_cache
def _mean_residuals(bridge: TransformerBridge, _arithmetic: frozenset[str]) -> Tensor:
    """Of every fourth bundled text, up to 256 tokens of it, without the first position."""
    rows = []
    for document in prose()[::4]:
        tokens = bridge.to_tokens(document.text)[:, : min(256, bridge.cfg.n_ctx)]
        points = [f"blocks.{i}.hook_resid_pre" for i in range(bridge.cfg.n_layers)]
        _, cache = bridge.run_with_cache(tokens, names_filter=points)
        rows.append(torch.cat([cache[point][:, 1:] for point in points]))
    return torch.cat(rows, dim=1).mean(1)


def _draw(seed: int, *counters: int) -> int:
    """63 bits of SplitMix64's finalizer, chained over the counters."""
    state = _finalize(seed * _GAMMA + _GAMMA)
    for counter in counters:
        state = _finalize(state ^ ((counter + 1) * _GAMMA & _MASK))
    return state >> 1


def _finalize(x: int) -> int:
    x &= _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
