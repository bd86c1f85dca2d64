"""Settings that experiments with small networks share."""

from dataclasses import dataclass, field

from ..contrasts import Resampling
from ..setting_checks import require_at_least, require_different
from .corpus import LEAST_VOCABULARY, CorpusSettings
from .shape import Shape
from .training import Optimization


@dataclass(frozen=True, kw_only=True)
class SmallNetworkSettings:
    """Text, size, training and measurement of small networks.

    Attributes:
        texts: the training text: "standard_library", "python_code", "python_reference", "prose",
            "docstrings", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT". Every tenth document is held out.
        vocabulary: the number of tokens of the tokenizer that is trained on the texts.
        context: how many tokens a network reads at a time.
        width: the width of the residual stream.
        heads: the number of heads of each block.
        seeds: the seeds of the trainings, which all arms share.
        steps: how many steps the optimizer makes.
        batch: how many texts are in a step.
        learning_rate, warm_up, weight_decay: options of AdamW, whose learning rate falls to zero as
            a cosine.
        evaluate_every: how many steps lie between points of the curves.
        windows: how many held-out windows are measured at each point, and at the end.
        smallest_all, smallest_copyable: the smallest change of the loss worth talking about, in
            nats.
        resampling: how intervals are resampled.
        seed: the seed of the held-out text and of all random material that is measured.
    """

    texts: tuple[str, ...] = ("standard_library", "python_reference")
    vocabulary: int = 1024
    context: int = 128
    width: int = 128
    heads: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    evaluate_every: int = 100
    windows: tuple[int, int] = (64, 256)
    smallest_all: float = 0.02
    smallest_copyable: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, 1, "steps", "batch", "evaluate_every", "warm_up", "width", "heads")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        require_at_least(self, 8, "context")
        if not self.seeds:
            raise ValueError("there must be a seed: give seeds")
        require_different(self, "seeds")
        require_at_least(self, LEAST_VOCABULARY, "vocabulary")
        if not 1 <= self.windows[0] <= self.windows[1]:
            raise ValueError(
                f"windows must be at least 1 at each point and no fewer at the end; got "
                f"{self.windows}"
            )
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")

    @property
    def corpus(self) -> CorpusSettings:
        """The choice of text, and how it is cut."""
        return CorpusSettings(self.texts, self.vocabulary, self.context, self.windows[1], self.seed)

    def shape_of(self, blocks: int) -> Shape:
        """The size of a network of `blocks` blocks."""
        return Shape(blocks, self.width, self.heads, self.context, self.vocabulary)

    def optimization_of(self, steps: int, weight_decay: float) -> Optimization:
        """The optimization of a network."""
        return Optimization(
            steps, self.learning_rate, self.warm_up, weight_decay, self.evaluate_every
        )
