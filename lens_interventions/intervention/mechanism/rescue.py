"""Whether the true token, written one position early, makes up for a hidden token."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.exclusive import exclusive
from ...model.partial_run import refuse_late_hooks
from ...model.points import FINAL, chosen_layers, require_blocks
from ...model.readout import readout
from ...model.residuals import residuals
from ...model.tokens import TextOrTokens, TokenBatch
from ..bound_patch import BoundPatch
from ..known_text import KnownText
from ..losses.loss_sums import require_finite
from ..losses.scopes import Scope, chosen_predictions, scopes_by_name
from ..names import function_names
from ..patch import NextTokenPatch, bind_all
from ..pieces import piece_length
from ..sources import SourceFunction
from ..text_sums import Reading, text_sums
from ..unpatched import surprisal_of, with_unpatched
from .compared_sources import compared_sources
from .hidden_continuations import (
    THROUGH,
    Through,
    hidden_continuations,
    late_predictions,
    require_copies,
)
from .rescue_result import Rescue


@exclusive
def rescue(
    bridge: TransformerBridge,
    texts: Iterable[TextOrTokens],
    patch: NextTokenPatch,
    *,
    sources: Sequence[str | SourceFunction] | None = None,
    layers: Sequence[int] | None = None,
    through: Sequence[Through] = THROUGH,
    scopes: Sequence[str | Scope] = ("copyable",),
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Rescue:
    """Whether later tokens can use a patch when the token that they would read is hidden.

    A model that copies reads `x[i+1]` at position i+1, so writing it at position i brings no news.
    Here that reading is taken away. From the patched layer up, the prediction at t does not attend
    to any position j < t with `x[j-1] == x[t]`. These are the continuations of its own token, where
    induction heads look, whatever comes next at t. It still sees everything else, including
    position j-1, where the patch writes `x[j]`. Copies then cost more, by `hidden - clean`. If
    later tokens can read a patch of the true next token, it gives part of this back, and the
    controls do not.

    Only the predicting position is blind to j: positions between j and t see it, and what they have
    made of it can still be read. So `hidden - clean` is what reading j directly is worth from that
    layer up, and all that a patch can rescue. If it is near zero, the result says nothing about the
    patch.

    `through` says how a prediction reads the patch: through keys and values of the patched
    positions; through their keys, with values as without a patch; or through their values, with
    keys as without a patch.

    **Arguments:**

    - `texts`: any iterable, read once. Intervals resample these texts.
    - `patch`: gives the layer, the strength, the mode and all other fields except the source. It
        must not have a window, nor `positions="generated"`. If its positions are numbers, each text
        must fit `max_length`.
    - `sources`: the sources to compare, by name or as functions, as in `NextTokenPatch`. By default
        they are true, current, shuffled and random, or the one of a learned write.
    - `layers`: layers to patch one at a time, instead of the patch's own. The continuations are
        hidden from the same layer up.
    - `through`: some of `"both"`, `"keys"` and `"values"`.
    - `scopes`: which predictions the loss is summed over, as in `slope_map`. Predictions for which
        nothing is hidden are as under the patch alone.
    - `max_length`: how many tokens are read at a time, by default 512 or the model's context if
        that is shorter. Longer texts are read in pieces, each as a separate text that begins with
        the BOS if the whole does.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `checkpoint`: a file for the sums of finished texts, from which the same call continues.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` for an unknown source, scope, layer or entry of `through`, a patch that is
    refused, if no text has a token to predict, if a loss is not finite, if a hook is on a block, or
    if the file holds something else; `TypeError` for one text where many are expected, anything but
    one patch, or layers that are no list of whole numbers; `NotImplementedError` if the model does
    not run copies of a text side by side, or its keys and values cannot be set; `OSError` if the
    file cannot be written, or another process is writing it. Warns if no text has one of the
    positions that the patch names.
    """
    length = piece_length(bridge, max_length)
    sources, names = compared_sources(patch, sources)
    ways = function_names("through", through, THROUGH)
    by_scope = scopes_by_name(scopes)
    n_layers = int(bridge.cfg.n_layers)
    if layers is None:
        require_blocks(patch.layers, n_layers)
        acting = [patch.layers]
    else:
        acting = [(layer,) for layer in chosen_layers(layers, n_layers)]
    refuse_late_hooks(bridge, min(min(each) for each in acting))
    patches = tuple(
        tuple(replace(patch, layer=each, source=source) for source in sources) for each in acting
    )
    measuring = _Measuring(
        bridge,
        bounds=tuple(tuple(filter(None, bind_all(bridge, row))) for row in patches),
        through=tuple(through),
        scopes=tuple(by_scope.values()),
    )
    shape = (len(acting), len(through), len(sources))
    n_values = 2 + len(acting) * (1 + len(through) * len(sources))
    settings = {"patches": patches, "through": through, "scopes": scopes, "max_length": length}
    sums = text_sums(
        bridge,
        texts,
        measuring,
        (len(by_scope), n_values),
        Reading(length, prepend_bos, progress, checkpoint, settings, [patch]),
    )
    hidden_end = 2 + len(acting)
    return Rescue(
        counts=sums[..., 0],
        clean=sums[..., 1],
        hidden=sums[..., 2:hidden_end],
        patched=sums[..., hidden_end:].reshape(-1, len(by_scope), *shape),
        patches=patches,
        sources=names,
        through=ways,
        scopes=tuple(by_scope),
    )


@dataclass(frozen=True)
class _Measuring:
    """Counts and nats of some texts, for each scope."""

    bridge: TransformerBridge
    bounds: tuple[tuple[BoundPatch, ...], ...]
    through: tuple[Through, ...]
    scopes: tuple[Scope, ...]

    @torch.no_grad()
    def __call__(self, text: KnownText) -> Float[Tensor, "piece scope value"]:
        bridge, tokens = self.bridge, text.tokens
        batch = TokenBatch.unpadded(tokens)
        layers = sorted({row[0].patch.layers[0] for row in self.bounds})
        *streams, final = residuals(bridge, batch, [*(f"{layer}_pre" for layer in layers), FINAL])
        entering = dict(zip(layers, streams, strict=True))
        read = readout(bridge).for_rows(tokens.numel())
        clean = surprisal_of(read, final, tokens.roll(-1, dims=1))
        chosen = chosen_predictions(self.scopes, tokens, clean, text.length)
        # Logits are expensive, and few predictions of a text may count.
        counted = chosen.any(0)
        # What follows no prediction may cost infinitely much.
        clean = clean.where(counted, 0)
        require_finite(clean)

        def nats(late: Tensor) -> Tensor:
            return torch.zeros_like(clean).masked_scatter(
                counted, surprisal_of(read, late[counted], tokens.roll(-1, dims=1)[counted])
            )

        lost = torch.stack([clean, *map(nats, self._late(text, entering))])
        require_finite(lost)
        lost = lost.cpu().double()
        chosen = chosen.cpu().double()
        sums = torch.einsum("sbt,rbt->bsr", chosen, lost)
        return torch.cat([chosen.sum(-1).T[..., None], sums], dim=2)

    def _late(
        self, text: KnownText, entering: Mapping[int, Float[Tensor, "batch pos d_model"]]
    ) -> Iterator[Float[Tensor, "batch pos d_model"]]:
        """`r[L]` with continuations hidden: without a patch by layer, then under each patch."""
        bridge = self.bridge
        text = with_unpatched(bridge, text, [bound.patch for row in self.bounds for bound in row])
        hidden = hidden_continuations(text.tokens)
        for row in self.bounds:
            layer = row[0].patch.layers[0]
            require_copies(bridge, entering[layer], text, layer=layer, through=self.through)
            yield late_predictions(
                bridge, None, entering[layer], text, hidden, layer=layer, through="both"
            )
        for row in self.bounds:
            layer = row[0].patch.layers[0]
            for way in self.through:
                for bound in row:
                    yield late_predictions(
                        bridge, bound, entering[layer], text, hidden, layer=layer, through=way
                    )
