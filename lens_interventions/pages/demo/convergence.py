"""Finding: the guesses converge over the layers."""

from collections import Counter

import numpy as np

from ...drawing.labels import visible
from ...plots import plot_aggregate
from .measured_model import PROSE_TEXTS, MeasuredModel, entering, middle
from .ranks import count, typical_rank
from .section import Condition, Figure, Section

_STEPS = 0.8
_RANK = 100


def convergence(model: MeasuredModel) -> Section:
    """KL(final ‖ layer) and the rank of the final top guess, from layer to layer."""
    kl = model.prose.means("kl_final")[1:]
    falling = np.diff(kl) < 0
    fallen = float(falling.mean()) if len(falling) else 0.0  # a single block leaves no step
    typical = [typical_rank(mean) for mean in model.prose.means("log10_final_rank")]
    half = len(typical) // 2
    agreement = model.prose.means("agrees_final")
    guess, share = _commonest_guess(model)
    peak = entering(model.prose.points[int(kl.argmax()) + 1])
    return Section(
        name="convergence",
        title="Guesses converge over the layers",
        brief=f"KL(final ‖ layer) falls at {fallen:.0%} of the steps; typical rank of the "
        f"final guess halfway up {count(typical[half])}",
        claim="Each layer's distribution comes closer to the final one, gradually, and somewhere "
        "in the middle the model already has a pretty good guess, which later layers refine.",
        conditions=(
            Condition(
                f"KL(final ‖ layer) falls at {_STEPS:.0%} of the steps from layer to layer, or "
                "more, after the first block",
                fallen >= _STEPS,
                f"it falls at {falling.sum()} of {len(falling)} steps ({fallen:.0%}); the "
                f"mean is {kl[0]:.1f} nats after the first block, at most {kl.max():.1f} ({peak}), "
                f"{kl[max(len(kl) - 2, 0)]:.1f} before the last",
            ),
            Condition(
                f"halfway up, the final top guess is typically among the first {_RANK}",
                typical[half] < _RANK,
                f"typical rank {count(typical[half])} halfway up ({count(typical[1])} after the "
                "first block)",
            ),
        ),
        text=(
            f"Means over the positions of {PROSE_TEXTS} short texts; a typical rank is a geometric "
            "mean of 1 + rank, less one. The heat maps show the passage that the post shows, the "
            "end of the abstract of the GPT-3 paper (Brown et al. 2020).",
            f"In the middle half of the layers the commonest top guess on that passage is "
            f"“{guess}”, in {share:.0%} of the cells, and the layer's top guess is the "
            f"model's own at {agreement[half]:.0%} of the positions halfway up "
            f"({agreement[-2]:.0%} before the last block). The post saw sensible early guesses.",
        ),
        figures=(
            Figure(
                "The top guess of each layer, coloured by its logit.", model.abstract_map("top1")
            ),
            Figure(
                "The same cells, coloured by how each layer ranks the model's final guess.",
                model.abstract_map("final_rank"),
            ),
            Figure(
                "How close the layers are to the output, on average.",
                plot_aggregate(
                    model.prose,
                    ["kl_final", "log10_final_rank"],
                    title="Layers compared with the output",
                ),
            ),
        ),
    )


def _commonest_guess(model: MeasuredModel) -> tuple[str, float]:
    shown = model.abstract
    guesses = shown.top_ids[middle(len(shown.points)), 0, :, 0].flatten().tolist()
    ((token, times),) = Counter(guesses).most_common(1)
    return visible(shown.vocab[token]), times / len(guesses)
