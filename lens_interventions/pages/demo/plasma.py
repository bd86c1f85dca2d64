"""Finding: a rare word to be copied is found only in the last layers."""

import math

from ...drawing.labels import visible
from ...model.points import point_name
from ...plots import plot_position
from .example_texts import PLASMA, PLASMA_WORD
from .measured_model import PLASMA_TOKENS, MeasuredModel
from .section import Condition, Figure, Section

_TOP = 10
_LATE = 0.9


def plasma(model: MeasuredModel) -> Section:
    """The rank of “plasma” through the layers at the position where it is due a second time."""
    trajectory, due = model.plasma, model.plasma_due
    here = trajectory[due]
    ranks = here.next_rank[:, 0, 0].tolist()
    last = len(ranks) - 1
    found = found_from(ranks, top=_TOP)
    log_prob = float(here.next_log_prob[-1, 0, 0])
    guess = visible(here.vocab[int(here.top_ids[-1, 0, 0, 0])])
    named = "in no layer" if found is None else f"from {_point(trajectory.points[found])} on"
    return Section(
        name="plasma",
        title="“plasma” is found only in the last layers",
        brief=f"rank {ranks[last // 2]:,} halfway up, {ranks[-2]:,} before the last block, "
        f"{ranks[-1]:,} at the output",
        claim="The word is said once and is plainly due again. The model does copy it, but only "
        "the very last layers show it: whatever carries it there does not look like “plasma”.",
        conditions=(
            Condition(
                "“plasma” is the model's own top guess where it is due",
                ranks[-1] == 0,
                f"rank {ranks[-1]:,} at the output, with probability {math.exp(log_prob):.2f} "
                f"(top guess “{guess}”)",
            ),
            Condition(
                f"it enters the top {_TOP} for good only in the last {1 - _LATE:.0%} of the layers",
                found is not None and found >= _LATE * last,
                f"it is among the top {_TOP} {named}; rank {ranks[last // 2]:,} halfway up, "
                f"{ranks[-2]:,} before the last block",
            ),
        ),
        text=(
            f"The text is the post's: “{PLASMA}{PLASMA_WORD}”. The heat maps show its last "
            f"{PLASMA_TOKENS} tokens before the copy; the model sees all of it.",
        ),
        figures=(
            Figure(
                "The top guesses up to the copy.",
                trajectory[model.plasma_shown].plot("top1", every=2),
            ),
            Figure(
                "How the layers rank the model's final guess.",
                trajectory[model.plasma_shown].plot("final_rank", every=2),
            ),
            Figure(
                "The position that predicts the copy, layer by layer.",
                plot_position(trajectory, due, ["next_rank", "input_rank", "kl_final", "kl_input"]),
            ),
        ),
    )


def found_from(ranks: list[int], *, top: int) -> int | None:
    """The first point from which on the rank stays among the first `top`."""
    out = [index for index, rank in enumerate(ranks) if rank >= top]
    first = out[-1] + 1 if out else 0
    return first if first < len(ranks) else None


def _point(point: str) -> str:
    name = point_name(point)
    return "the output" if name == "final" else f"block {name}"
