"""What a run of the copying experiment measures."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ..design.conditions import PatchSettings, spread_layers
from ..design.contrasts import Resampling

Preset = Literal["quick", "full"]


@dataclass(frozen=True)
class CopyingSettings:
    """Settings of the copying experiment; `CopyingSettings.preset` makes them.

    Pairs of numbers are (selection, report): one half of the material selects layer, strength and
    mode over the whole grid, the other reports at the chosen cell alone, so it can be larger.

    Attributes:
        layers, strengths, modes: the grid.
        shortlist: how many cells, of different layers, are compared with controls.
        patch: what all patches have in common.
        induction_sequences: how many sequences of random tokens, said twice.
        induction_length: tokens that are said twice.
        template_words: how many words of each frequency in each group, up to 4.
        texts: where natural text comes from: "python_reference", "prose", a path for
            `materials.read_texts`, or "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT", of
            which the first 2,000 documents are read.
        documents: up to how many of each text.
        document_tokens: how many tokens of each document are read, from its beginning.
        surprisal_edges: of the bins of surprisal, in nats.
        surprising: from how many nats on a token counts as surprising; one of the edges.
        recent: a surprise counts as recent for so many tokens.
        batch: sequences to a unit of work.
        smallest_copy: the smallest difference worth talking about in the loss on a copy or the
            log-prob of a word, in nats: 0.05 is a twentieth of its probability.
        smallest_text: the same in the loss on natural text, which is a mean over many tokens.
        resampling: of the intervals and p-values.
        seed: of the random tokens and the halves.
    """

    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    modes: tuple[str, ...] = ("interpolate", "add", "correct")
    shortlist: int = 3
    patch: PatchSettings = field(default_factory=PatchSettings)
    induction_sequences: tuple[int, int] = (16, 96)
    induction_length: int = 40
    template_words: tuple[int, int] = (1, 4)
    texts: tuple[str, ...] = ("python_reference", "prose")
    documents: tuple[int, int] = (12, 40)
    document_tokens: int = 192
    surprisal_edges: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0)
    surprising: float = 6.0
    recent: int = 8
    batch: int = 8
    smallest_copy: float = 0.05
    smallest_text: float = 0.02
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.layers and self.strengths and self.modes and self.texts):
            raise ValueError("give at least one layer, strength, mode and text")
        sizes = {
            name: getattr(self, name)
            for name in ("induction_sequences", "template_words", "documents")
        }
        for name, size in sizes.items():
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"{name} must be two numbers from 1 up, got {size}")
        if self.surprising not in self.surprisal_edges:
            raise ValueError(
                f"surprising must be one of the edges {self.surprisal_edges}, so that bins lie on "
                f"one side of it; got {self.surprising}"
            )
        if self.induction_length < 2 or self.document_tokens < 3 or self.recent < 1:
            raise ValueError(
                "induction_length must be at least 2, document_tokens 3, recent 1; got "
                f"{self.induction_length}, {self.document_tokens}, {self.recent}"
            )

    @property
    def divisions(self) -> dict[str, Any]:
        """How text is divided, as parameters of units that measure it."""
        return {
            "edges": list(self.surprisal_edges),
            "surprising": self.surprising,
            "recent": self.recent,
        }

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "CopyingSettings":
        """Settings for a model of `n_layers` layers.

        On the default model and two cores "quick" takes about 4 minutes. "full" took an
        hour on one thread of a busy machine.

        Raises `ValueError` for another name.
        """
        if name == "quick":
            return cls(
                layers=spread_layers(n_layers, 3),
                strengths=(0.1, 0.3),
                modes=("interpolate", "correct"),
                shortlist=2,
                induction_sequences=(8, 12),
                template_words=(1, 1),
                documents=(6, 8),
                document_tokens=128,
            )
        if name == "full":
            return cls(layers=spread_layers(n_layers, 6), strengths=(0.03, 0.1, 0.3, 1.0))
        raise ValueError(f"preset must be 'quick' or 'full', got {name!r}")
