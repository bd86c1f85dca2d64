"""Finding: extreme repetition is noticed in the upper part only."""

import numpy as np

from ...drawing.curves import Curve
from ...lens.figures.grid import cells
from ...lens.figures.over_layers import draw_over_layers
from ...lens.logit_lens import logit_lens
from ...model.points import point_name
from .example_texts import REPEATED, ROUNDS
from .measured_model import CELL_WIDTH, MeasuredModel
from .ranks import count, log10_ranks, typical_rank
from .section import Condition, Figure, Section

_FACTOR = 10
_TOP = 10


def repeated_text(model: MeasuredModel) -> Section:
    """How each layer ranks the right continuation, round by round."""
    trajectory = logit_lens(model.bridge, " ".join([REPEATED] * ROUNDS))
    # Columns whose next token belongs to a round: the last one of a round predicts the next round's
    # first.
    ends = [model.token_count(" ".join([REPEATED] * rounds)) - 1 for rounds in range(1, ROUNDS + 1)]
    spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    logs = log10_ranks(cells(trajectory.next_rank[:, 0]))
    means = np.array([logs[:, span].mean(-1) for span in spans])
    first, last = means[0], means[-1]
    gains = 10 ** (first - last)
    half = len(gains) // 2
    # In the lower half of one or two blocks there is nothing but the input.
    lowest = min(1, half - 1)
    best = lowest + int(gains[lowest:half].argmax())
    noticed = next((i for i, gain in enumerate(gains) if gain >= _FACTOR), None)
    layers = [point_name(point) for point in trajectory.points]
    where = "at no layer" if noticed is None else f"first at layer {layers[noticed]}"
    return Section(
        name="repetition",
        title="Repetition is noticed in the upper part only",
        brief=f"in round {ROUNDS} against round 1, the right token is ranked {gains[best]:.1f} "
        f"times better in the lower half at most, {gains[-1]:,.0f} times at the output",
        claim="When a text repeats itself over and over, the upper half of the network notices, "
        "while the lower half cannot see it even after several rounds.",
        conditions=(
            Condition(
                f"the model notices: at the output of the last round the right token is typically "
                f"among the top {_TOP}, and is ranked at least {_FACTOR} times better than in the "
                "first round",
                typical_rank(last[-1]) < _TOP and bool(gains[-1] >= _FACTOR),
                f"typical rank {count(typical_rank(first[-1]))} in the first round, "
                f"{count(typical_rank(last[-1]))} in the last",
            ),
            Condition(
                f"no layer of the lower half ranks it {_FACTOR} times better in the last round "
                "than in the first",
                bool(gains[best] < _FACTOR),
                f"at most {gains[best]:.1f} times better there (layer {layers[best]}); a factor of "
                f"{_FACTOR} is reached {where}",
            ),
        ),
        text=(
            f"The text is “{REPEATED}” {ROUNDS} times over; it was written for this page. A "
            "typical rank is the geometric mean of 1 + rank over a round's tokens, less one.",
        ),
        figures=(
            Figure(
                "How the layers rank the right continuation, a line for each round.",
                draw_over_layers(
                    [
                        Curve(
                            label=f"round {number}",
                            unit="rank",
                            x=layers,
                            values=10**line - 1,
                            colour=number - 1,
                            dash=number - 1,
                        )
                        for number, line in enumerate(means, start=1)
                    ],
                    title="Rank of the right continuation",
                    subtitle=f"Means over the tokens of each of {ROUNDS} rounds.",
                    theme="light",
                ),
            ),
            Figure(
                "The first round: the right token is a surprise to every layer.",
                trajectory[spans[0]].plot("next_rank", every=2, cell_width=CELL_WIDTH),
            ),
            Figure(
                "The last round: only the upper layers know the right token.",
                trajectory[spans[-1]].plot("next_rank", every=2, cell_width=CELL_WIDTH),
            ),
        ),
    )
