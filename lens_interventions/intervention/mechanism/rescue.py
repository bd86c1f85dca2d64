"""Whether the true token, written one position early, makes up for a token that is hidden."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...model.exclusive import exclusive
from ...model.partial_run import refuse_late_hooks
from ...model.points import FINAL
from ...model.readout import readout
from ...model.residuals import residuals
from ...model.tokens import TextOrTokens, TokenBatch
from ..known_text import KnownText
from ..patch import NextTokenPatch
from ..slopes.controls import function_names
from ..slopes.pieces import piece_length
from ..slopes.scopes import SCOPES, Scope, chosen_predictions
from ..slopes.text_sums import Reading, text_sums
from ..sources import SourceFunction, source_names
from ..unpatched import surprisal_of, with_unpatched
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
    sources: Sequence[str | SourceFunction] = ("true", "current", "shuffled", "random"),
    layers: Sequence[int] | None = None,
    through: Sequence[Through] = THROUGH,
    scopes: Sequence[str | Scope] = ("copyable",),
    max_length: int | None = None,
    prepend_bos: bool | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Rescue:
    """Would the loss fall if later tokens could use a patch? Hide what they read instead, and see.

    A model that copies reads `x[i+1]` at position i+1, so that writing it at position i brings no
    news. Here that reading is taken away. From the patched layer up, the prediction at t does not
    attend to any position j < t with `x[j-1] == x[t]`: the continuations of its own token, where
    induction heads look, whatever comes next at t. Everything else it sees, so also position j-1,
    where the patch writes `x[j]`. Copies then cost more, `hidden - clean`; a patch of the true next
    token that later tokens can read gives part of it back, and the controls do not.

    Only the predicting position loses sight: positions between j and t see j, and what they have
    made of it by then can still be read. So `hidden - clean` is what reading j directly is worth
    from that layer up, and is what there is to be rescued. Where it is near zero, the rescue says
    nothing.

    `through` tells how a prediction reads the patch: through keys and values of the patched
    positions; through their keys, the values as without a patch; or through their values alone.

    **Arguments:**

    - `texts`: any iterable, read once. Each is a text of its own for the intervals.
    - `patch`: its layer, strength, mode and all else but the source. It has no window.
    - `sources`: what is written in turn: of `NextTokenPatch`, functions too.
    - `layers`: each in turn instead of the patch's own; the continuations are hidden from the same
        layer up.
    - `through`: some of `"both"`, `"keys"` and `"values"`.
    - `scopes`: which predictions the loss is over, as in `slope_map`. Predictions that hide
        nothing are as under the patch alone.
    - `max_length`: tokens that are read at a time, 512 by default, or the model's context. Longer
        texts are read in pieces, each as a text of its own.
    - `prepend_bos`: as in `TransformerBridge.to_tokens`.
    - `out`: a file that keeps what each text gave; stopped at any point, the same call goes on.
    - `progress`: show a progress bar over texts.

    Raises `ValueError` for an unknown source, scope, layer or way to read, a patch with a window,
    no text with a token to predict, a hook on a block, or a file that holds something else;
    `TypeError` for one text where many are expected; `NotImplementedError` for a model that does
    not run copies of a text side by side, or whose keys and values cannot be set.
    """
    length = piece_length(bridge, max_length)
    if patch.window is not None:
        raise ValueError(f"the patch has a window of {patch.window}; give one without")
    names = function_names("sources", sources, source_names())
    ways = function_names("through", through, THROUGH)
    scope_names = function_names("scopes", scopes, list(SCOPES))
    acting = [patch.layers] if layers is None else [(layer,) for layer in layers]
    refuse_late_hooks(bridge, min(min(each) for each in acting))
    patches = tuple(
        tuple(replace(patch, layer=each, source=source) for source in sources) for each in acting
    )
    measuring = _Measuring(
        bridge,
        patches=patches,
        through=tuple(through),
        scopes=tuple(SCOPES[scope] if isinstance(scope, str) else scope for scope in scopes),
    )
    shape = (len(acting), len(through), len(sources))
    n_values = 2 + len(acting) * (1 + len(through) * len(sources))
    settings = {
        "patches": [[str(each) for each in row] for row in patches],
        "through": list(through),
        "scopes": list(scope_names),
        "max_length": length,
    }
    sums = text_sums(
        bridge,
        texts,
        measuring,
        len(scopes) * n_values,
        Reading(length, prepend_bos, progress, None if out is None else Path(out), settings),
    ).reshape(-1, len(scopes), n_values)
    hidden_end = 2 + len(acting)
    return Rescue(
        counts=sums[..., 0],
        clean=sums[..., 1],
        hidden=sums[..., 2:hidden_end],
        patched=sums[..., hidden_end:].reshape(-1, len(scopes), *shape),
        patches=patches,
        sources=names,
        through=ways,
        scopes=scope_names,
    )


@dataclass(frozen=True)
class _Measuring:
    """Counts and nats of some texts, for each scope."""

    bridge: TransformerBridge
    patches: tuple[tuple[NextTokenPatch, ...], ...]
    through: tuple[Through, ...]
    scopes: tuple[Scope, ...]

    @torch.no_grad()
    def __call__(self, text: KnownText) -> Float[Tensor, "piece value"]:
        bridge, tokens = self.bridge, text.tokens
        batch = TokenBatch(tokens, torch.ones_like(tokens, dtype=torch.bool))
        lowest = sorted({row[0].layers[0] for row in self.patches})
        *streams, final = residuals(bridge, batch, [*(f"{layer}_pre" for layer in lowest), FINAL])
        entering = dict(zip(lowest, streams, strict=True))
        read = readout(bridge).for_rows(tokens.numel())
        clean = surprisal_of(read, final, tokens.roll(-1, dims=1))
        chosen = torch.stack(
            [chosen_predictions(scope, tokens, clean, text.length) for scope in self.scopes]
        )
        # Logits are dear, and few predictions of a text may count.
        counts = chosen.any(0)

        def nats(late: Tensor) -> Tensor:
            return torch.zeros_like(clean).masked_scatter(
                counts, surprisal_of(read, late[counts], tokens.roll(-1, dims=1)[counts])
            )

        lost = torch.stack([clean, *map(nats, self._late(text, entering))]).double()
        sums = torch.einsum("sbt,rbt->bsr", chosen.double(), lost)
        return torch.cat([chosen.sum(-1).T[..., None], sums], dim=2).flatten(1)

    def _late(
        self, text: KnownText, entering: Mapping[int, Float[Tensor, "batch pos d_model"]]
    ) -> Iterator[Float[Tensor, "batch pos d_model"]]:
        """`r[L]` with continuations hidden, by layer; then that under each patch."""
        bridge = self.bridge
        text = with_unpatched(bridge, text, [patch for row in self.patches for patch in row])
        hidden = hidden_continuations(text.tokens)
        for row in self.patches:
            layer = row[0].layers[0]
            require_copies(bridge, entering[layer], text, layer=layer, through=self.through)
            yield late_predictions(
                bridge, None, entering[layer], text, hidden, layer=layer, through="both"
            )
        for row in self.patches:
            layer = row[0].layers[0]
            for way in self.through:
                for patch in row:
                    yield late_predictions(
                        bridge,
                        patch.bind(bridge),
                        entering[layer],
                        text,
                        hidden,
                        layer=layer,
                        through=way,
                    )
