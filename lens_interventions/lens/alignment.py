"""Two prompts side by side: which positions of the one match which of the other.

Runs of equal tokens match, as in a diff. A run that was replaced by one of the same length, such as
"plasma" by "coffee", matches position by position. Tokens that were inserted or left out have no
partner.
"""

from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from ..drawing.labels import visible
from .selection import at_columns
from .trajectory import Trajectory


@dataclass(frozen=True)
class Alignment:
    """The matching columns of two trajectories.

    Attributes:
        first, second: the trajectories at those columns. If tokens differ, both carry an id made up
            for the pair, whose text names both tokens.
        left_out: the text of the tokens without a partner, of the first and of the second
            trajectory.
    """

    first: Trajectory
    second: Trajectory
    left_out: tuple[list[str], list[str]]


def align(first: Trajectory, second: Trajectory) -> Alignment:
    """The matching columns of two trajectories, in order, so that they can be drawn together.

    **Arguments:**

    - `first`, `second`: trajectories of one prompt each, read at the same points by models with one
        tokenizer.

    **Returns:** an `Alignment`, whose two sides `plots.plot_side_by_side` takes.

    Raises `ValueError` if no column matches, if the points differ, or if there are several prompts.
    """
    if first.points != second.points:
        raise ValueError(
            f"the trajectories have different points: {first.points[0]} to {first.points[-1]} "
            f"({len(first.points)}) and {second.points[0]} to {second.points[-1]} "
            f"({len(second.points)}); models with different layers cannot be aligned"
        )
    if len(first.tokens) != 1 or len(second.tokens) != 1:
        raise ValueError(
            f"align takes one prompt of each, got {len(first.tokens)} and {len(second.tokens)}: "
            "choose one with trajectory.prompt(i)"
        )
    ids = first.tokens[0].tolist(), second.tokens[0].tolist()
    # Ids that were made up in two alignments may be the same for different pairs.
    known, others = (
        [str(token) if token >= -1 else side.vocab[token] for token in of_side]
        for side, of_side in zip((first, second), ids, strict=True)
    )
    blocks = SequenceMatcher(None, known, others, autojunk=False).get_opcodes()
    pairs = [
        (*pair, kind)
        for kind, start, end, other_start, other_end in blocks
        if kind == "equal" or (kind == "replace" and end - start == other_end - other_start)
        for pair in zip(range(start, end), range(other_start, other_end), strict=True)
    ]
    if not pairs:
        raise ValueError(
            "the two prompts have no matching tokens: align readings of texts that share some, or "
            "of as many tokens"
        )
    *columns, _ = map(list, zip(*pairs, strict=True))
    tokens = first.tokens[:, columns[0]].clone()
    made_up: dict[int, str] = {}
    # Trajectories that were aligned before have such ids already.
    lowest = min(-1, *first.vocab, *second.vocab)
    for place, (left, right, kind) in enumerate(pairs):
        if kind != "equal":
            token = lowest - 1 - len(made_up)
            made_up[token] = f"{first.vocab[ids[0][left]]}/{second.vocab[ids[1][right]]}"
            tokens[0, place] = token
    sides = [
        replace(
            at_columns(side, chosen),
            tokens=tokens,
            vocab={**side.vocab, **first.vocab, **made_up},
        )
        for side, chosen in zip((first, second), columns, strict=True)
    ]
    return Alignment(
        sides[0],
        sides[1],
        (_rest(first, ids[0], columns[0]), _rest(second, ids[1], columns[1])),
    )


def _rest(trajectory: Trajectory, ids: list[int], kept: list[int]) -> list[str]:
    placed = set(kept)
    return [visible(trajectory.vocab[token]) for i, token in enumerate(ids) if i not in placed]
