"""The result of training a patch: the write, and the losses along the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._summary import summary
from ...drawing.colours import ZERO_LINE
from ...drawing.curves import Curve, draw_curves
from ...drawing.theme import ThemeName
from ..adapted_reader import AdaptedReader
from ..learned_write import LearnedWrite
from ..patch import NextTokenPatch

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class TrainedPatch:
    """A learned write and how it was learned.

    Losses are in nats per predicted token. `clean_loss` is the loss of the model without the patch
    on the same tokens, and `change` is `loss - clean_loss`. `write_length` is the length of the
    writes as shares of the residual's, summed over the patched positions and divided by the number
    of predicted tokens; what a base writes does not count. With texts to preserve, `kl` is
    KL(clean ‖ patched) on these, in nats a token.

    Attributes:
        write: the write, with the values of the step whose held-out loss and penalties were lowest.
        curve: a row for each step, measured before the step is made: step, loss, clean_loss,
            change, write_length, learning_rate, gradient_norm, and kl.
        held_out: a row for each evaluation: step, loss, clean_loss, change, write_length, and kl.
        settings: the settings of the training, and its outcome.
    """

    write: LearnedWrite
    curve: "pd.DataFrame"
    held_out: "pd.DataFrame"
    settings: Mapping[str, Any]

    __repr__ = summary

    @property
    def patch(self) -> NextTokenPatch:
        """The patch that was trained, at strength 1."""
        return self.write.patch()

    @property
    def reader(self) -> AdaptedReader | None:
        """The reader that was trained with the write, if any; the write needs it to be on."""
        return self.write.reader

    def plot(self, *, theme: ThemeName = "light") -> "go.Figure":
        """The change of the loss over the steps, on the text of each step and on held-out text.

        `theme` is `"light"` or `"dark"`.

        Raises `ValueError` if the theme is unknown.
        """
        curves = [
            Curve(
                label=label,
                unit="change of loss, nats a token",
                x=frame["step"].tolist(),
                values=frame["change"].to_numpy(),
                notes=[
                    f"{loss:.4f} with the patch, {clean:.4f} without"
                    for loss, clean in zip(frame["loss"], frame["clean_loss"], strict=True)
                ],
                colour=colour,
                faint=frame is self.curve,
            )
            for colour, (label, frame) in enumerate(
                {"text of the step": self.curve, "held-out text": self.held_out}.items()
            )
        ]
        layers = ", ".join(map(str, self.write.layers))
        reader = " and its reader" if self.reader is not None else ""
        title = f"A trained write{reader} at layer {layers}, source {self.write.trained_with}"
        figure = draw_curves(
            curves,
            x_title="steps made",
            title=title,
            subtitle="Loss with it minus loss of the model as it is: below 0 is better.",
            theme=theme,
        )
        figure.add_hline(y=0, line=ZERO_LINE)
        return figure
