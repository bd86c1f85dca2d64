"""How many logits each component of a model adds to one token: numbers, a table and a figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .._summary import summary
from ..drawing.clipped import clipped_scale
from ..drawing.labels import visible
from ..drawing.panel import Panel
from ..drawing.theme import ThemeName
from ..drawing.wrapped import draw_wrapped
from ..model.argument_types import require_counts
from .selection import require_prompt

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True, eq=False)
class ComponentLogits:
    """What each component writes to the residual stream, read as logits of one token.

    Attributes:
        components: labels in stream order, as in TransformerLens: `embed`, `pos_embed`,
            `3_attn_out`, `3_mlp_out`; with heads, `L3H0` and so on and `3_attn_bias` instead of
            `3_attn_out`. The last is `bias`, that of the final norm and the unembedding.
        logits: `[component, batch, pos]`, the logits that each adds; NaN at padding. Their sum over
            components is the model's own logit, before a soft cap if the model has one, minus that
            of `against`.
        tokens: `[batch, pos]`, the ids read.
        targets: `[batch, pos]`, the ids of the tokens whose logits are split.
        against: `[batch]`, id of the token whose logits were subtracted, or None.
        mask: `[batch, pos]`, False at padding.
        vocab: text of every id.
    """

    components: tuple[str, ...]
    logits: Float[Tensor, "component batch pos"]
    tokens: Int[Tensor, "batch pos"]
    targets: Int[Tensor, "batch pos"]
    against: Int[Tensor, " batch"] | None
    mask: Bool[Tensor, "batch pos"]
    vocab: Mapping[int, str]

    __repr__ = summary

    def to_dataframe(self) -> "pandas.DataFrame":
        """A row per (component, prompt, position): component, batch, pos, token, target, logits."""
        import pandas

        component, batch, pos = self.mask.expand(self.logits.shape).nonzero(as_tuple=True)
        return pandas.DataFrame(
            {
                "component": [self.components[i] for i in component.tolist()],
                "batch": batch.numpy(),
                "pos": pos.numpy(),
                "token": [self.vocab[i] for i in self.tokens[batch, pos].tolist()],
                "target": [self.vocab[i] for i in self.targets[batch, pos].tolist()],
                "logits": self.logits[component, batch, pos].numpy(),
            }
        )

    def plot(
        self, *, batch: int = 0, rows: int = 32, theme: ThemeName = "light"
    ) -> "plotly.graph_objects.Figure":
        """Components by tokens, the last at the top: red where one speaks for the token above.

        **Arguments:**

        - `batch`: which prompt.
        - `rows`: how many components to show: those that change the logit most at a typical
            position.
        - `theme`: `"light"` or `"dark"`.

        Raises `ValueError` if there is no such prompt, if `rows` is below 1, or if the theme is
        unknown.
        """
        require_prompt(batch, len(self.tokens))
        require_counts(rows=rows)
        here = self.mask[batch]
        values = self.logits[:, batch, here].double().numpy()
        typical = np.median(np.abs(values), axis=1)
        shown = np.sort(np.argsort(-typical, kind="stable")[:rows])
        values, names = values[shown], [self.components[i] for i in shown.tolist()]
        less = ""
        if self.against is not None:
            less = f", less that of {visible(self.vocab[int(self.against[batch])])}"
        scale, ticks, beyond = clipped_scale(values)
        inputs, outputs = (
            tuple(visible(self.vocab[i]) for i in ids[batch, here].tolist())
            for ids in (self.tokens, self.targets)
        )
        # Adding zero turns minus zero into zero.
        texts = tuple(
            tuple(f"{x:.1f}".replace("-", "−") for x in row) for row in values.round(1) + 0
        )
        left_out = f", of which {len(shown)} are shown," if len(shown) < len(self.logits) else ""
        sentences = (
            "Logits that each component adds to the token above, through the final norm. All "
            f"{len(self.logits)} components{left_out} sum to its logit{less}, before any soft cap."
        )
        panel = Panel(
            places=values,
            scale=scale,
            ticks=ticks,
            bar_title="logits",
            texts=texts,
            outlined=np.zeros(values.shape, bool),
            rows=tuple(names),
            inputs=inputs,
            outputs=outputs,
            hover_template="%{customdata[0]}, %{x}<br>%{z:+.3f} logits<extra></extra>",
            hover_data=[[[name]] * len(inputs) for name in names],
        )
        return draw_wrapped(
            panel,
            title=f"What each component adds to a token's logit{less}",
            reading=lambda _size: f"{sentences} {beyond}".strip(),
            axis="",
            theme=theme,
        )
