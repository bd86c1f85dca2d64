"""A fitted lens for any model that needs no corpus, kept in the user's cache.

It is fitted on first use, which takes about a minute for the embedded model, and not shipped: the
maps of that model alone would add 20 MB in half precision to every copy of the library.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..intervention.generation.sample_texts import sample_texts
from ..lens.affine import AffineLens
from ..lens.cells import Progress
from ..model.alterations import alteration
from ..model.exclusive import exclusive
from ..model.fingerprint import model_hash
from ..model.hooks import without_hooks
from ..model.text_pieces import bos_id
from ..model.user_cache import CACHE_VARIABLE, cache_directory
from .affine_fit import fit_affine_lens

# Some 12,000 tokens. Three times as much reads prose hardly better: benchmarks/lens_corpus.py.
_TEXTS, _LENGTH = 96, 128


@exclusive
def default_affine_lens(bridge: TransformerBridge, *, progress: Progress = True) -> AffineLens:
    """An affine lens fitted to texts that the model writes itself (`sample_texts`).

    It is fitted on first use, without the temporary hooks that may be on the bridge, and kept in
    the user's cache under the hash of the model's weights. Permanent hooks, hooks of torch, another
    forward of a module and `torch.autocast` count as part of the model: under them, the lens is
    fitted anew at each call. For special material, fit a lens to more of that material with
    `fit_affine_lens`.

    `progress` shows a bar. If it is a function, it is called with the share that is done, from 0 to
    1, and an error that it raises ends the fit. A lens that is there already is loaded without; if
    its file is damaged, the lens is fitted again.

    Raises `OSError` if the cache cannot be written; `ValueError` if the tokenizer names no token to
    begin a text with, or if the model's logits are not the final norm and the unembedding of its
    last residual; `NotImplementedError` if the model is recurrent or not a causal decoder.
    """
    path = default_lens_file(bridge)
    for_weights_alone = alteration(bridge, temporary_hooks=False) is None
    if for_weights_alone and path.is_file():
        try:
            return AffineLens.load(path)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):  # which says nothing of the file
                raise
    with without_hooks(bridge.hook_points()):
        lens = fit_affine_lens(
            bridge,
            _told(
                sample_texts(bridge, _TEXTS, length=_length(bridge), progress=progress is True),
                progress,
            ),
            corpus="the model's own samples",
            progress=False,  # each text is fitted to as it comes
        )
    if not for_weights_alone:
        return lens
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lens.save(path)
    except OSError as error:
        raise OSError(
            f"the fitted lens cannot be kept in {path.parent}: {error}. Set {CACHE_VARIABLE} to a "
            "directory that can be written"
        ) from error
    return AffineLens.load(path)


def default_lens_file(bridge: TransformerBridge) -> Path:
    """The file in which `default_affine_lens` keeps the lens of a model, if there is one yet."""
    # Another release may fit otherwise, and another token begin the texts.
    fit = f"{_TEXTS}x{_length(bridge)}-{bos_id(bridge)}-{version('lens_interventions')}"
    return cache_directory() / f"affine-{model_hash(bridge)}-{fit}.safetensors"


def _length(bridge: TransformerBridge) -> int:
    return min(_LENGTH, int(bridge.cfg.n_ctx))


def _told(
    texts: Iterable[Int[Tensor, " pos"]], progress: Progress
) -> Iterator[Int[Tensor, " pos"]]:
    for done, text in enumerate(texts):
        if callable(progress):
            progress(done / _TEXTS)
        yield text
    if callable(progress):
        progress(1.0)
