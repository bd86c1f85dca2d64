"""A fitted lens for any model without a corpus at hand: made once, kept in the user's cache.

It is made rather than shipped: for the default model 20 MB of maps in half precision would go with
every copy of the library, against about a minute of fitting on first use, for any model.
"""

import os
from collections.abc import Iterator

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ._embedded import cache_directory
from .affine import AffineLens, fingerprint
from .affine_fit import fit_affine_lens
from .materials import python_reference

# Tokens read of each topic of the Python reference: some 20,000 together, about a minute on two
# cores for the default model.
_TOKENS_EACH = 256


def default_affine_lens(bridge: TransformerBridge, *, progress: bool = True) -> AffineLens:
    """An affine lens fitted to the beginnings of the Python reference's topics.

    Fitted on first use and kept in the user's cache by the hash of the model's weights. For
    serious use fit one to more text, and of the kind that you read: see `fit_affine_lens`.

    Raises `OSError` where the cache cannot be written, and what `fit_affine_lens` raises.
    """
    path = cache_directory() / f"affine-{fingerprint(bridge)}-{_TOKENS_EACH}.safetensors"
    if path.is_file():
        return AffineLens.load(path)
    lens = fit_affine_lens(
        bridge,
        _beginnings(bridge),
        window=_TOKENS_EACH,
        corpus="Python language reference, beginnings of topics",
        progress=progress,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        lens.save(partial)
        partial.replace(path)
    except OSError as error:
        raise OSError(
            f"the fitted lens cannot be kept in {path.parent}: {error}. Set "
            "LENS_INTERVENTIONS_CACHE to a directory that can be written"
        ) from error
    return AffineLens.load(path)


def _beginnings(bridge: TransformerBridge) -> Iterator[Int[Tensor, "1 pos"]]:
    for document in python_reference():
        # A token is hardly ever longer than 16 characters on average.
        text = document.text[: 16 * _TOKENS_EACH]
        yield bridge.to_tokens(text, truncate=False)[:, :_TOKENS_EACH]
