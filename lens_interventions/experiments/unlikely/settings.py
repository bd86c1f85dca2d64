"""Settings of the experiment on unlikely tokens."""

from dataclasses import dataclass, field

from ..design.contrasts import Resampling
from ..design.setting_checks import require_at_least
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class UnlikelySettings:
    """Settings of the experiment on unlikely tokens; `UnlikelySettings.preset` makes them.

    Attributes:
        texts: the sources of text: "python_reference", "prose", "docstrings", "python_code",
            "standard_library", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT".
        documents: the most documents of each text that are read.
        document_tokens: how many tokens of each document are read, from its beginning.
        below: the probability at the output under which a token is unlikely.
        directions: how many tokens, and how many random directions, are drawn for each document.
        ablated: how many directions are taken out at each position.
        depths: the layers at which they are taken out, as shares of the number of blocks. The
            verdict is about the mean over these.
        batch: documents in a unit of work.
        smallest_size: the smallest difference of sizes worth talking about; an average direction
            has size 1.
        smallest_left: the smallest difference of the part left at the output worth talking about.
        smallest_loss: the smallest difference of the loss worth talking about, in nats per token.
        resampling: how intervals are resampled.
        seed: the seed of the choice of documents and of the directions.

    Raises `ValueError` if there is no depth or one outside 0 to 1, or for sizes that leave nothing
    to measure.
    """

    texts: tuple[str, ...] = ("python_reference", "prose")
    documents: int = 20
    document_tokens: int = 128
    below: float = 1e-6
    directions: int = 1024
    ablated: int = 16
    depths: tuple[float, ...] = (0.25, 0.5, 0.75)
    batch: int = 6
    smallest_size: float = 0.1
    smallest_left: float = 0.1
    smallest_loss: float = 0.02
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.depths or not all(0 <= depth < 1 for depth in self.depths):
            raise ValueError(f"depths must be one or more from 0 to below 1, got {self.depths}")
        require_at_least(self, 1, "documents", "directions", "ablated", "batch")
        require_at_least(self, 4, "document_tokens")
        if self.ablated > self.directions:
            raise ValueError(
                f"ablated must be at most directions, got {self.ablated} and {self.directions}"
            )

    def layers(self, n_layers: int) -> list[int]:
        """The layers at which directions are taken out."""
        return sorted({int(depth * n_layers) for depth in self.depths})

    @classmethod
    def preset(cls, name: Preset) -> "UnlikelySettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        return cls(documents=10, document_tokens=64) if name == "quick" else cls()
