"""Finding of a comment: the jump across the first block is due to context."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.curves import Curve, draw_curves
from ...measures.intervals import mean_interval
from ...model.partial_run import run_late_rows
from ...model.points import point_labels
from ...model.precision import as_double
from ...model.readout import readout
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from .measured_model import PROSE_TEXTS, PROSE_TOKENS, MeasuredModel
from .section import Condition, Figure, Section

_PLACES = ("the input", "the first block, each token alone", "the first block")
_REFERENCES = ("final", "input")


def first_block(model: MeasuredModel) -> Section:
    """KL to the output and to the input after the first block, with and without context."""
    tokens = [model.bridge.to_tokens(text)[:, :PROSE_TOKENS] for text in model.prose_texts]
    # [text, reference, place]
    sums = np.stack([distances(model.bridge, ids) for ids in tokens])
    counts = np.array([ids.shape[1] - 1 for ids in tokens])
    means = {
        reference: [
            mean_interval(sums[:, row, place], counts, rng=np.random.default_rng(0))
            for place in range(len(_PLACES))
        ]
        for row, reference in enumerate(_REFERENCES)
    }
    before, alone, together = (mean.estimate for mean in means["final"])
    falls = before > together
    of_that = f"it falls by {(before - alone) / (before - together):.0%} of that" if falls else ""
    _, still, away = (mean.estimate for mean in means["input"])
    return Section(
        name="first-block",
        title="The jump across the first block is due to context",
        brief=f"KL(final ‖ layer) goes from {before:.1f} nats to {together:.1f}, and to "
        f"{alone:.1f} where each token sees itself alone",
        claim="A comment: the embedding predicts from a single word, and the first block brings in "
        "hundreds of words of context. That is where the big jump comes from.",
        conditions=(
            Condition(
                "if every position attends to itself alone in the first block, KL(final ‖ layer) "
                "falls by less than half as much",
                falls and before - alone < 0.5 * (before - together),
                of_that or "it does not fall across the first block with context either",
            ),
            Condition(
                "the layer is then also nearer to the input, by KL(input ‖ layer)",
                still < away,
                f"{still:.1f} nats alone, {away:.1f} with context",
            ),
        ),
        text=(
            "A block in which every position attends to itself alone knows what a single word "
            f"tells. Means over {PROSE_TEXTS} texts of up to {PROSE_TOKENS} tokens, without each "
            "text's first.",
        ),
        figures=(
            Figure(
                "How far each is from the output and from the input.",
                draw_curves(
                    [
                        Curve(
                            label=f"KL({reference} ‖ layer)",
                            unit="nats",
                            x=_PLACES,
                            values=np.array([mean.estimate for mean in of]),
                            low=np.array([mean.low for mean in of]),
                            high=np.array([mean.high for mean in of]),
                            colour=number,
                            dash=number,
                        )
                        for number, (reference, of) in enumerate(means.items())
                    ],
                    x_title="",
                    x_name="place",
                    title="The first block with context and without",
                    subtitle="Bands are 95% bootstrap intervals over texts.",
                ),
            ),
        ),
    )


@torch.no_grad()
def distances(
    bridge: TransformerBridge, tokens: Int[Tensor, "1 pos"]
) -> Float[np.ndarray, "reference place"]:
    """Sums of KL(reference ‖ place) in nats, over all positions except the first.

    The references are the output and the input. The places are the input, and the residual that
    enters the second block, if each position attends only to itself in the first block, and as
    usual.
    """
    points = point_labels(int(bridge.cfg.n_layers))
    whole = TokenBatch.unpadded(tokens)
    first, second, last = residuals(bridge, whole, [points[0], points[1], points[-1]])
    position = torch.arange(tokens.shape[1], device=tokens.device)
    alone = run_late_rows(
        bridge,
        0,
        first,
        position=position,
        visible=position[:, None] == position,
        until=points[1],
    )
    read = readout(bridge)
    possible = read.possible()

    def log_probs(residual: Tensor) -> Float[Tensor, "pos d_vocab"]:
        logits = read(residual[0, 1:])[:, possible]
        return as_double(logits).log_softmax(-1)

    places = [log_probs(residual) for residual in (first, alone, second)]
    return np.array(
        [
            [float((reference.exp() * (reference - place)).sum()) for place in places]
            for reference in (log_probs(last), places[0])
        ]
    )
