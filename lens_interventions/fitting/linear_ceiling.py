"""The steepest linear write of the next token that can be fitted to some texts.

To first order, a write w[i] into the residual of position i changes the loss by Σ ⟨g[i], w[i]⟩,
where g are the gradients of `slope_map`. To second order, its cost grows with its length relative
to the residual. So the best linear write of some features is the ridge regression of `-|r| g` on
them. It is fitted with the next token among the features and without it. The result is how much
steeper the first is on texts that neither has seen.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .._progress import progress_bar
from ..intervention.known_text import KnownText
from ..intervention.pieces import TextTokens, piece_batches, piece_length, text_tokens
from ..intervention.slopes.clean_run import clean_run
from ..intervention.slopes.residual_gradients import residual_gradients
from ..intervention.text_sums import Reading, text_sums
from ..model.argument_types import require_counts
from ..model.embedding import Embedding, embedding
from ..model.exclusive import exclusive
from ..model.fingerprint import fingerprint
from ..model.gradients import require_gradients
from ..model.partial_run import refuse_late_hooks
from ..model.points import chosen_layers
from ..model.precision import as_double
from ..model.tokens import TextOrTokens, require_texts
from ..model.user_hooks import has_user_hooks
from .linear_write import LinearCeiling, LinearWrite, features

# Ridges as shares of the mean square of a feature; a quarter of the texts chooses the best.
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_CHOOSING = 4


@exclusive
def linear_ceiling(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    held_out: Iterable[TextOrTokens],
    *,
    layers: Sequence[int] | None = None,
    first_position: int = 1,
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> LinearCeiling:
    """How steep the best linear write of the next token is on texts that it was not fitted to.

    To first order, it says what `train_patch` could learn with a full matrix from as much text. It
    is an estimate from below: the write has some `3 d_model` features, and a fit to more text can
    be steeper. If the increment over the write that does not see the next token is
    below 0, a linear write of the next token is worth training; if it is not, that is no proof that
    none is. `li.curvature` of `LinearCeiling.patch` shows how much of the slope a
    patch can use.

    **Arguments:**

    - `texts`: to fit on; every fourth chooses the ridge.
    - `held_out`: other texts, to measure on.
    - `layers`: the layers to write to, by default all. Each takes about `60 d_model²` bytes of the
        CPU's memory.
    - `first_position`, `max_length`, `prepend_bos`, `progress`: as in `slope_map`.

    Raises `ValueError` for fewer than four texts or too short ones, layers or a `max_length` that
    do not fit the model, a hook on a block, held-out texts without a token to predict, a loss that
    is not finite, or inside `torch.inference_mode`, or if the model was loaded there; `TypeError`
    for one text where many are expected, or layers that are no list of whole numbers;
    `NotImplementedError` if the two streams do not fit the model.
    """
    require_gradients("linear_ceiling", bridge)
    layers = tuple(sorted(chosen_layers(layers, int(bridge.cfg.n_layers))))
    length = piece_length(bridge, max_length)
    require_counts(least=0, first_position=first_position)
    require_texts(bridge, held_out)
    if isinstance(held_out, Sized) and not len(held_out):
        raise ValueError("there are no held-out texts: give some that are not fitted to")
    refuse_late_hooks(bridge, 0)
    table = embedding(bridge)
    unit = float(table.typical_length)
    reader = _Reader(bridge, table, unit, layers, first_position)
    read = text_tokens(bridge, texts, prepend_bos)
    moments = _fit_moments(reader, read, length, progress)
    # What is solved is let go, since the writes take almost as much memory.
    fitted = {layer: _solve_both(moments.pop(layer)) for layer in layers}
    matrices = ({layer: fitted[layer][news][0] for layer in layers} for news in (0, 1))
    weights = fingerprint(bridge)
    writes = tuple(LinearWrite(each, unit, first_position, weights) for each in matrices)
    sums = text_sums(
        bridge,
        held_out,
        lambda text: reader.slopes(text, writes),
        (1 + 3 * len(layers),),
        Reading(length, prepend_bos, progress, None, {}),
    )
    return LinearCeiling(
        totals=sums[:, 1:].reshape(len(sums), 3, len(layers)),
        counts=sums[:, 0],
        layers=layers,
        writes=(writes[0], writes[1]),
        ridges=np.array([[fitted[layer][i][1] for layer in layers] for i in (0, 1)]),
    )


@dataclass
class _Moments:
    """Sums over rows: products of features, products of features and targets, and counts.

    Products of features cover only the part to fit on; the other part only chooses.
    """

    products: Float[Tensor, "feature feature"]
    wanted: Float[Tensor, "part feature d_model"]
    rows: list[int]


@dataclass(frozen=True)
class _Reader:
    bridge: TransformerBridge
    table: Embedding
    unit: float
    layers: tuple[int, ...]
    first_position: int

    @torch.no_grad()
    def rows(self, text: KnownText) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """For each layer: which rows may be written to, their features and `|r| g`."""
        clean = clean_run(self.bridge, text)
        position = text.column_positions()
        written = text.predicts & (position >= self.first_position)
        following, here = (self.table(text.at(position + shift)) for shift in (1, 0))
        for layer, (gradient,) in residual_gradients(
            self.bridge, clean, text.predicts[None], lowest=self.layers[0]
        ):
            if layer in self.layers:
                resid = clean.streams[layer]
                phi = features(following, here, resid, self.unit)
                yield layer, written, phi, resid.norm(dim=-1, keepdim=True) * gradient

    def slopes(self, text: KnownText, writes: Sequence[LinearWrite]) -> Float[Tensor, "piece _"]:
        """Counts, then the slopes of the writes and of the free one at each layer."""
        n_texts, n_layers = len(text.tokens), len(self.layers)
        found = torch.zeros(n_texts, len(writes) + 1, n_layers, dtype=torch.float64)
        for layer, written, phi, pull in self.rows(text):
            moved = [phi @ write.matrices[layer].to(phi) for write in writes]
            slopes = [*(torch.linalg.vecdot(each, pull) for each in moved), -pull.norm(dim=-1)]
            change = as_double(torch.stack(slopes, dim=1) * written[:, None]).sum(-1)
            found[:, :, self.layers.index(layer)] = change.cpu()
        return torch.cat([(text.length - 1)[:, None].cpu().double(), found.flatten(1)], dim=1)


def _fit_moments(
    reader: _Reader, texts: Iterable[TextTokens], length: int, progress: bool
) -> dict[int, _Moments]:
    """The moments by layer, of the texts to fit on and of those that choose the ridge."""
    d_model = int(reader.bridge.cfg.d_model)
    size = 3 * d_model + 1
    moments = {
        layer: _Moments(
            torch.zeros(size, size, dtype=torch.float32),
            torch.zeros(2, size, d_model, dtype=torch.float32),
            [0, 0],
        )
        for layer in reader.layers
    }
    numbers = itertools.count()
    shown = progress_bar(texts, shown=progress, unit="text", desc="fitting")
    numbered = ((number, text) for text, number in zip(shown, numbers, strict=False))
    # As in the measurement of the held-out texts.
    alone = has_user_hooks(reader.bridge)
    for batch in piece_batches(numbered, length, alone=alone):
        chooses = torch.tensor([number % _CHOOSING == _CHOOSING - 1 for number in batch.owners])
        for layer, written, phi, pull in reader.rows(batch.text):
            of = moments[layer]
            for part, pieces in enumerate((~chooses, chooses)):
                here = written & pieces.to(written.device)[:, None]
                rows, wanted = phi[here].to(of.products), -pull[here].to(of.products)
                if part == 0:
                    of.products.addmm_(rows.T, rows)
                of.wanted[part].addmm_(rows.T, wanted)
                of.rows[part] += len(rows)
    n_texts = next(numbers)
    if n_texts < _CHOOSING:
        raise ValueError(
            f"{n_texts} texts do not leave one in {_CHOOSING} to choose the ridge on: give more"
        )
    if not all(min(m.rows) for m in moments.values()):
        raise ValueError(
            f"the write acts on no position of {n_texts} texts, or of every {_CHOOSING}th of them, "
            "on which the ridge is chosen: give longer texts"
        )
    return moments


def _solve_both(moments: _Moments) -> list[tuple[Float[Tensor, "feature d_model"], float]]:
    """The write without news, the write with them, and their ridges."""
    return [_solve(moments, news) for news in (False, True)]


def _solve(moments: _Moments, news: bool) -> tuple[Float[Tensor, "feature d_model"], float]:
    """The write, of unit length, and its ridge; without news, the next token's rows are 0."""
    products, wanted = moments.products.double(), moments.wanted.double()
    first = 0 if news else wanted.shape[-1]
    fitting, n_rows = products[first:, first:], moments.rows[0]
    best, best_gain, chosen = torch.zeros_like(wanted[0]), -torch.inf, 0.0
    for ridge in _RIDGES:
        shift = ridge * fitting.diagonal().mean() * torch.eye(len(fitting), dtype=torch.float64)
        matrix = torch.linalg.solve(fitting + shift, wanted[0, first:])
        length = torch.einsum("fd,fg,gd->", matrix, fitting, matrix).div(n_rows).sqrt()
        matrix = matrix / length.clamp(min=1e-30)
        gain = float((matrix * wanted[1, first:]).sum())
        if gain > best_gain:
            best = torch.zeros_like(wanted[0])
            best[first:] = matrix
            best_gain, chosen = gain, ridge
    return best, chosen
