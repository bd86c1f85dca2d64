"""Where a model makes up its mind: the first layer from which the final guess stays.

nostalgebraist (2020) reads this layer off the figure of the top guess by eye. Here it has a
definition, and a number for every token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .._summary import summary
from ..drawing.labels import visible
from ..drawing.theme import ThemeName
from ..model.argument_types import require_counts, require_numbers
from ..model.points import FINAL, point_name
from .figures.commitment import draw_commitment
from .selection import require_prompt
from .trajectory_fields import TrajectoryFields

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go
    from rich.table import Table

CRITERIA: dict[str, dict[str, Any]] = {
    "top1": {},
    "top3": {"top": 3},
    "half": {"probability": 0.5},
}
"""Options of `Trajectory.commitment` by the names that the command line and the explorer use."""


@dataclass(frozen=True, eq=False)
class Commitment:
    """For each token, the first residual point from which the final guess stays.

    Print it with rich for a table in the terminal.

    Attributes:
        points: labels of the residual points that were read.
        first: `[batch, pos]`, the index into `points`; -1 at padding, and where even at the last
            point the final guess does not meet the criterion.
        criterion: the criterion that the final guess meets from there on, in words.
        tokens: `[batch, pos]`, the ids read.
        guesses: `[batch, pos]`, the last point's top guesses; -1 at padding.
        positions: `[batch, pos]`, each token's position in its text.
        mask: `[batch, pos]`, False at padding.
        vocab: text of the ids.
    """

    points: tuple[str, ...]
    first: Int[Tensor, "batch pos"]
    criterion: str
    tokens: Int[Tensor, "batch pos"]
    guesses: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    vocab: Mapping[int, str]

    __repr__ = summary

    def names(self, batch: int = 0) -> tuple[str | None, ...]:
        """Each token's point as figures name it, `input`, `12` or `final`; None if there is none.

        Padding of the prompt `batch` is left out.

        Raises `ValueError` if there is no such prompt.
        """
        here = self._here(batch)
        first = self.first[batch][here].tolist()
        return tuple(None if i < 0 else point_name(self.points[i]) for i in first)

    def _here(self, batch: int) -> Bool[Tensor, " pos"]:
        require_prompt(batch, len(self.mask))
        return self.mask[batch]

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row per (prompt, position): token, final guess, and the point.

        `first` is the index of the point. Both are missing if the final guess never stays.
        """
        import pandas

        batch, pos = self.mask.nonzero(as_tuple=True)
        cell = (batch, pos)
        first = self.first[cell].tolist()
        tokens, guesses = self.tokens[cell].tolist(), self.guesses[cell].tolist()
        return pandas.DataFrame(
            {
                "batch": batch.numpy(),
                "pos": self.positions[cell].numpy(),
                "token_id": tokens,
                "token": [self.vocab[token] for token in tokens],
                "guess_id": guesses,
                "guess": [self.vocab[guess] for guess in guesses],
                "point": [None if i < 0 else self.points[i] for i in first],
                "first": pandas.array([None if i < 0 else i for i in first], dtype="Int64"),
            }
        )

    def plot(self, *, batch: int = 0, theme: ThemeName = "light") -> "go.Figure":
        """A bar for each token of a prompt, up to the point from which the final guess stays.

        `batch` is the number of the prompt. `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if there is no such prompt, or the theme is unknown.
        """
        here = self._here(batch)
        return draw_commitment(
            [point_name(point) for point in self.points],
            self.first[batch][here].tolist(),
            positions=self.positions[batch][here].tolist(),
            inputs=self._texts(self.tokens[batch][here]),
            guesses=self._texts(self.guesses[batch][here]),
            criterion=self.criterion,
            theme=theme,
        )

    def __rich__(self) -> "Table":
        """A line for each token of every prompt."""
        from rich.table import Table
        from rich.text import Text

        several = len(self.tokens) > 1
        table = Table(*(["prompt"] if several else []), "pos", "token", "final guess", "from layer")
        for batch, here in enumerate(self.mask):
            cells = zip(
                self.positions[batch][here].tolist(),
                self._texts(self.tokens[batch][here]),
                self._texts(self.guesses[batch][here]),
                self.names(batch),
                strict=True,
            )
            for position, token, guess, name in cells:
                prompt = [str(batch)] if several else []
                table.add_row(*prompt, str(position), Text(token), Text(guess), name or "never")
        table.caption = (
            f"The first of the layers read from which the final guess stays {self.criterion}."
        )
        return table

    def _texts(self, ids: Int[Tensor, " pos"]) -> list[str]:
        return [visible(self.vocab[token]) for token in ids.tolist()]


def find_commitment(
    read: TrajectoryFields, *, top: int | None, probability: float | None
) -> Commitment:
    """The first point of a trajectory from which the criterion holds without a break.

    `top` and `probability` are those of `Trajectory.commitment`.

    Raises `ValueError` if the last point is not the model's output or the criterion makes no sense.
    """
    if read.points[-1] != FINAL:
        raise ValueError(
            f"the last point that was read is {read.points[-1]}, not {FINAL}: read the final point "
            "as well, since it defines the final guess"
        )
    if top is not None and probability is not None:
        raise ValueError(f"give top={top} or probability={probability}, not both")
    if probability is None:
        top = 1 if top is None else top
        require_counts(top=top)
        holds = (read.final_rank >= 0) & (read.final_rank < top)
        criterion = "on top" if top == 1 else f"among the top {top}"
    else:
        require_numbers(probability=probability)
        if not 0 <= probability < 1:
            raise ValueError(f"probability must be at least 0 and below 1, got {probability}")
        holds = read.final_log_prob.exp() > probability
        criterion = f"above a probability of {probability:g}"
    stays = holds.int().flip(0).cumprod(0).sum(0)  # points in a row, counted from the last
    return Commitment(
        points=read.points,
        first=torch.where((stays > 0) & read.mask, len(read.points) - stays, -1),
        criterion=criterion,
        tokens=read.tokens,
        guesses=read.top_ids[-1, ..., 0],
        positions=read.positions,
        mask=read.mask,
        vocab=read.vocab,
    )
