"""Fitting affine lenses in closed form, in one pass over any amount of text."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from .adapter import require_readable, residuals
from .affine import AffineLens, fingerprint
from .points import select_points
from .ridge import RidgeMoments
from .token_batch import TextOrTokens
from .windows import Checkpoint, as_batch, token_windows


@torch.no_grad()
def fit_affine_lens(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    window: int = 512,
    skip_first: int = 1,
    holdout: int = 10,
    prepend_bos: bool | None = None,
    corpus: str = "",
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> AffineLens:
    """Fit a map per layer by ridge regression, in one pass over any amount of text.

    Minimizes `sum_i |r[L]_i - T_l(r[l]_i)|² / |r[L]_i|²` with a ridge that draws `T_l` to the
    identity: the final norm makes the length of a residual irrelevant, so every position counts
    the same. Only moments are held, `[layer, d_model, d_model]` in float64, of what is fitted to
    and of what is held out; the result does not depend on how texts are batched.

    **Arguments:**

    - `texts`: any iterable, read once. Each is read in windows of `window` tokens, or what fits
        the model.
    - `skip_first`: leave out this many tokens of every window: the first is an outlier, at which
        attention rests.
    - `holdout`: every so-manieth window is not fitted to but used to choose the ridge per layer.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `corpus`: what the texts are, for the lens's own note beside their hash.
    - `checkpoint`: a file that keeps the sums every minute. The same call goes on from it, and
        ends in the same numbers; the texts must be the same. It may be removed after.
    - `progress`: show a progress bar over tokens.

    Raises `ValueError` with fewer windows than `holdout` or a checkpoint of something else, and
    what `require_readable` raises.
    """
    require_readable(bridge)
    n_layers, d_model = int(bridge.cfg.n_layers), int(bridge.cfg.d_model)
    device, labels = bridge.W_U.device, select_points(n_layers)
    fitted, held_out = (RidgeMoments(n_layers, d_model, d_model, device) for _ in "ab")
    sums = {"fitted": fitted, "held_out": held_out}
    weights_hash = fingerprint(bridge)
    settings = {"window": window, "skip_first": skip_first, "holdout": holdout}
    kept = Checkpoint(checkpoint, {"model": weights_hash, **settings})
    if state := kept.load():
        kept.restore(state, sums)
    windows = (
        piece
        for piece in token_windows(bridge, texts, window=window, prepend_bos=prepend_bos)
        if len(piece) > skip_first
    )
    with tqdm(disable=not progress, unit="token", desc="fitting", initial=fitted.n) as bar:
        for piece in kept.remaining(windows):
            streams = [r[0, skip_first:] for r in residuals(bridge, as_batch(piece), labels)]
            moments = held_out if kept.done % holdout == 0 else fitted
            last = streams[-1].double()
            length = last.norm(dim=-1, keepdim=True)
            scale = 1 / length.where(length > 0, 1)
            for layer, stream in enumerate(streams[:-1]):
                moments.add(layer, stream, last - stream, scale)
            moments.n += len(last)
            bar.update(len(piece))
            kept.save(sums)
    kept.require_windows(holdout, window)
    kept.save(sums, now=True)
    solutions = [fitted.solve(layer, held_out) for layer in range(n_layers)]
    dtype = bridge.W_U.dtype if bridge.W_U.dtype == torch.float64 else torch.float32
    return AffineLens(
        torch.stack([solution.weight for solution in solutions]).to("cpu", dtype),
        torch.stack([solution.bias for solution in solutions]).to("cpu", dtype),
        weights_hash,
        {
            "model": str(bridge.cfg.model_name),
            "tokens": fitted.n,
            "held_out_tokens": held_out.n,
            "corpus": corpus,
            "corpus_hash": kept.digest,
            **settings,
            "ridges": [solution.ridge for solution in solutions],
        },
    )
