"""Slopes of every patch at every layer, from one backward pass per text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from ...lens.protocol import Lens
from ...model.exclusive import exclusive
from ...model.gradients import require_gradients
from ...model.partial_run import refuse_late_hooks
from ...model.points import chosen_layers
from ...model.precision import as_double
from ...model.tokens import TextOrTokens
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..losses.scopes import Scope, chosen_predictions, scopes_by_name
from ..modes import MODES, Mode
from ..names import function_names
from ..patch import NextTokenPatch, require_patch_fits
from ..patch_fields import choices
from ..pieces import piece_length
from ..sources import SourceFunction, source_names
from ..text_sums import Reading, text_sums
from .clean_run import clean_run
from .directions import directions
from .final_guess import KnownGuesses, final_guess, source_of
from .residual_gradients import residual_gradients
from .result import SlopeMap

Embeddings = Sequence[Literal["W_E", "W_E_centred", "W_U", "lens"]]

TOKEN_SOURCES = ("true", "current", "previous", "shuffled", "random", "final_guess")


@exclusive
def slope_map(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    *,
    sources: Sequence[str | SourceFunction] = TOKEN_SOURCES,
    modes: Sequence[str | Mode] = ("add",),
    embeddings: Embeddings = ("W_E",),
    scopes: Sequence[str | Scope] = ("all",),
    layers: Sequence[int] | None = None,
    scale: Literal["raw", "norm", "deviation"] = "norm",
    gate: float | None = None,
    gate_on: Literal["lens", "output"] = "lens",
    window: int | None = None,
    lens: Lens | JacobianLens | None = None,
    first_position: int = 1,
    seed: int = 0,
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> SlopeMap:
    """The slope of the loss in the strength of a weak patch, for every kind of patch and layer.

    The loss is differentiated through the two streams of `teacher_forced_log_probs`, from block 0
    up, with nothing written. That gives d(loss)/d(residual) of every patched position at every
    layer. Its product with the direction in which a patch moves the residual is d(loss)/d(strength)
    at strength 0, for any source, mode and embedding. If it is negative, a weak enough patch lowers
    the loss; `curvature` says how weak.

    Random sources draw by the tokens of each text, so neither the order of the texts nor other
    texts in a batch change a number.

    This is attribution patching (Nanda 2023; Kramár et al. 2024, "AtP*") for a patch that only
    later tokens see. It equals the derivative of the losses of `patch_loss`.

    **Arguments:**

    - `texts`: any iterable, read once. Intervals resample these texts.
    - `sources`: sources that `NextTokenPatch` takes, by name or as functions, and `"final_guess"`,
        the model's own top guess at the position.
    - `modes`, `embeddings`: those that `NextTokenPatch` takes; a mode may be a function. In half
        precision, `site.resid` is in float32 for such a function.
    - `scopes`: which predictions the loss is summed over: `"all"`; `"copyable"`, those that
        complete an earlier pair, and `"other"`; `"after_surprise"`, after a token of at least 6
        nats; `"repeated_surprise"`, of a token that was as surprising where it first stood; or a
        function of a text's tokens `[pos]` and their nats without a patch `[pos - 1]` that returns
        a bool for each. Each part of the predictions that the scopes tell apart takes a backward
        pass.
    - `layers`: all by default.
    - `scale`, `gate`, `gate_on`, `window`, `lens`, `seed`: as in `NextTokenPatch`. Reading the lens
        (for a gate on it, mode `"correct"` or source `"guess"`) costs as much as all the rest
        together.
    - `first_position`: positions below it are not patched. 1 spares the first token, where models
        park attention in a residual that can be a hundred times longer than the others.
    - `max_length`: how many tokens are read at a time, by default 512 or the model's context if
        that is shorter. Longer texts are read in pieces, each as a separate text that begins with
        the BOS if the whole does, so memory depends only on this length; with a window that is
        shorter, on the square of length times window.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `checkpoint`: a file for the sums of finished texts, from which the same call continues.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` for an unknown source, mode, scope or layer, if no text has a token to
    predict, if a loss is not finite, if a hook is on a block, if the model is in training mode, if
    the file holds another map or could not know a function again, or inside `torch.inference_mode`,
    or if the model was loaded there; `TypeError` for one text where many are expected, or layers
    that are no list of whole numbers; `NotImplementedError` if the two streams do not fit the
    model; `OSError` if the file cannot be written, or another process is writing it.
    """
    require_gradients("slope_map", bridge)
    length = piece_length(bridge, max_length)
    names = {
        "sources": function_names("sources", sources, (*source_names(), "final_guess")),
        "modes": function_names("modes", modes, list(MODES)),
        "embeddings": function_names("embeddings", embeddings, choices("embedding")),
    }
    by_scope = scopes_by_name(scopes)
    layers = tuple(sorted(chosen_layers(layers, int(bridge.cfg.n_layers))))
    common: dict[str, Any] = {
        "scale": scale,
        "gate": gate,
        "gate_on": gate_on,
        "window": window,
        "lens": lens,
        "seed": seed,
        "first_position": first_position,
    }
    patches = tuple(
        NextTokenPatch(
            layer=layers,
            strength=1.0,
            source=source_of(source),
            mode=mode,  # type: ignore[arg-type]
            embedding=embedding,
            **common,
        )
        for embedding, mode, source in product(embeddings, modes, sources)
    )
    refuse_late_hooks(bridge, 0)
    measuring = _Measuring(
        bridge,
        bounds=tuple(_bound(bridge, patches)),
        scopes=tuple(by_scope.values()),
        layers=layers,
    )
    settings = {
        "sources": sources,
        "modes": modes,
        "embeddings": embeddings,
        "scopes": scopes,
        **common,
        "layers": layers,
        "max_length": length,
    }
    sums = text_sums(
        bridge,
        texts,
        measuring,
        (len(by_scope), 2 + len(patches) * len(layers)),
        Reading(length, prepend_bos, progress, checkpoint, settings),
    )
    shape = (len(embeddings), len(modes), len(sources), len(layers))
    return SlopeMap(
        totals=sums[..., 2:].reshape(-1, len(by_scope), *shape),
        counts=sums[..., 0],
        nats=sums[..., 1],
        **names,
        scopes=tuple(by_scope),
        layers=layers,
        patches=patches,
    )


def _bound(bridge: TransformerBridge, patches: Iterable[NextTokenPatch]) -> Iterator[BoundPatch]:
    """The patches on the model, whose tables are made once for each embedding."""
    known: dict[str, BoundPatch] = {}
    for patch in patches:
        require_patch_fits(bridge, patch)
        if patch.embedding not in known:
            known[patch.embedding] = patch.bind(bridge)
        yield replace(known[patch.embedding], patch=patch)


@dataclass(frozen=True)
class _Measuring:
    """Counts, nats and slopes of some texts, for each scope."""

    bridge: TransformerBridge
    bounds: tuple[BoundPatch, ...]
    scopes: tuple[Scope, ...]
    layers: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, text: KnownText) -> Float[Tensor, "piece scope value"]:
        clean = clean_run(self.bridge, text)
        text = clean.text
        chosen = chosen_predictions(self.scopes, text.tokens, clean.nats, text.length)
        losses, members = _disjoint(chosen)
        guess = KnownGuesses(clean.guesses)
        bounds = [
            replace(bound, patch=replace(bound.patch, source=guess))
            if bound.patch.source is final_guess
            else bound
            for bound in self.bounds
        ]
        if any(bound.patch.reads_lens for bound in bounds):
            # Two products with the unembedding at each layer are most of the work.
            read = bounds[0].readout.for_rows(len(self.layers) * text.tokens.numel())
            bounds = [replace(bound, readout=read) for bound in bounds]
        position = text.column_positions()
        n_texts, n_layers = len(text.tokens), len(self.layers)
        slopes = torch.zeros(len(losses), n_texts, len(bounds), n_layers, dtype=torch.float64)
        for layer, gradients in residual_gradients(
            self.bridge,
            clean,
            losses,
            lowest=self.layers[0],
            window=self.bounds[0].patch.window_in(text.tokens.shape[1]),
        ):
            if layer not in self.layers:
                continue
            place = self.layers.index(layer)
            for part, moved in directions(
                bounds, clean.streams[layer], layer=layer, position=position, text=text
            ):
                for loss, gradient in enumerate(gradients):
                    rows = gradient[:, part]
                    for patch, direction in enumerate(moved):
                        change = as_double(torch.linalg.vecdot(rows, direction)).sum(1)
                        slopes[loss, :, patch, place] += change.cpu()
        of_scopes = torch.einsum("sl,lbpk->bspk", members, slopes)
        counts = chosen.sum(2).T
        nats = torch.stack([as_double(clean.nats * where).sum(1) for where in chosen], dim=1)
        counted = torch.stack([as_double(counts), nats], dim=2).cpu()
        return torch.cat([counted, of_scopes.flatten(2)], dim=2)


def _disjoint(
    chosen: Bool[Tensor, "scope batch pos"],
) -> tuple[Bool[Tensor, "loss batch pos"], Float[Tensor, "scope loss"]]:
    """Losses to differentiate, and the matrix that sums them to scopes.

    The losses are the scopes themselves, or the parts of the predictions that the scopes tell apart
    if these are fewer: "all", "copyable" and "other" take two backward passes.
    """
    patterns = chosen.flatten(1).T.unique(dim=0)
    patterns = patterns[patterns.any(1)]
    if len(patterns) >= len(chosen):
        return chosen, torch.eye(len(chosen), dtype=torch.float64)
    parts = (chosen == patterns[:, :, None, None]).all(1)
    return parts, patterns.T.cpu().double()
