"""The model of the page, and readings of it that several sections share."""

from functools import cached_property
from typing import TYPE_CHECKING

from transformer_lens.model_bridge import TransformerBridge

from ...lens.aggregate import LensAggregate
from ...lens.lens_over import lens_over
from ...lens.logit_lens import logit_lens
from ...lens.protocol import Lens
from ...lens.trajectory import Trajectory
from ...materials import prose
from ...model.points import point_name
from .example_texts import ABSTRACT, ABSTRACT_END, PLASMA, PLASMA_WORD

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN_TOKENS = 20  # of the abstract, as in the post's two figures of ten
PROSE_TEXTS, PROSE_TOKENS = 6, 32
PLASMA_TOKENS = 8  # shown of the plasma sentence, up to the copy
CELL_WIDTH = 42.0  # pixels, so that 20 tokens fit the page


class MeasuredModel:
    """A bridge, and readings of it that several sections share; each is made once."""

    def __init__(self, bridge: TransformerBridge) -> None:
        """Wrap a bridge; readings are made when they are first needed."""
        self.bridge = bridge

    @cached_property
    def abstract(self) -> Trajectory:
        """The end of the GPT-3 abstract, all of which the model sees; KL both ways."""
        start = self.token_count(ABSTRACT)
        return logit_lens(
            self.bridge,
            ABSTRACT + ABSTRACT_END,
            positions=slice(start, start + SHOWN_TOKENS),
            divergences=("kl", "kl_reverse"),
        )

    @property
    def prose_texts(self) -> list[str]:
        """The short texts that means are taken over."""
        return [document.text for document in prose()[:PROSE_TEXTS]]

    @cached_property
    def prose(self) -> LensAggregate:
        """Means over short texts, read raw."""
        return self.prose_through(None)

    def prose_through(self, lens: Lens | None) -> LensAggregate:
        """The same texts through a lens, without each text's first token, which is an outlier."""
        return lens_over(
            self.bridge,
            self.prose_texts,
            lens=lens,
            max_tokens=PROSE_TOKENS,
            positions=slice(1, None),
            progress=False,
        )

    @cached_property
    def plasma(self) -> Trajectory:
        """The plasma sentence with the word that is to be copied, read raw."""
        return self.plasma_through(None)

    def plasma_through(self, lens: Lens | None) -> Trajectory:
        """The same sentence through a lens."""
        return logit_lens(self.bridge, PLASMA + PLASMA_WORD, lens=lens)

    @property
    def plasma_due(self) -> int:
        """The position in `plasma` at which the word is due."""
        return self.token_count(PLASMA) - 1

    @property
    def plasma_shown(self) -> slice:
        """The positions in `plasma` that heat maps show, the last of which is `plasma_due`."""
        return slice(self.plasma_due - PLASMA_TOKENS + 1, self.plasma_due + 1)

    def abstract_map(self, statistic: str) -> "go.Figure":
        """A heat map of `abstract`, of every other layer, as in the post."""
        return self.abstract.plot(statistic, every=2, cell_width=CELL_WIDTH)

    def token_count(self, text: str) -> int:
        """How many tokens a text has, with a beginning-of-text token if the model expects one."""
        return int(self.bridge.to_tokens(text, truncate=False).shape[1])


def entering(point: str) -> str:
    """A residual point as it stands in a sentence: "entering block 3", "at the output"."""
    name = point_name(point)
    return "at the output" if name == "final" else f"entering block {name}"


def middle(points: int) -> slice:
    """The second and third quarter of this many points."""
    return slice(points // 4, points - points // 4)
