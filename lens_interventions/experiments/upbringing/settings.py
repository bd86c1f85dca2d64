"""What a run of the upbringing experiment trains and measures."""

from dataclasses import dataclass, field

from ..design.contrasts import Resampling
from ..design.small_networks.corpus import CorpusSettings
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Optimization
from ..engine.presets import Preset, require_preset
from .arms import ARMS, NO_DECAY, STRONG_DECAY, Training


@dataclass(frozen=True)
class UpbringingSettings:
    """Settings of the upbringing experiment; `UpbringingSettings.preset` makes them.

    Attributes:
        texts: what is trained on: "standard_library", "python_reference", a path for
            `materials.read_texts`, or "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT". Every
            tenth document is held out.
        vocabulary: tokens of the tokenizer that is trained on them.
        context: tokens that a network reads at a time.
        width: of the residual stream.
        heads: of each block.
        blocks: of each network, an even number.
        seeds: of the trainings; the arms share them.
        steps: of the optimizer.
        batch: texts to a step.
        learning_rate, warm_up: of AdamW, with a cosine to zero.
        weight_decay: of AdamW on every parameter, in all arms but two.
        strong_decay: in the arm of that name. A weight without a gradient shrinks by the sum of
            learning rate times decay: in short trainings 0.1 hardly acts.
        evaluate_every: steps between points of the curves.
        windows: how many held-out windows are measured at each point, and at the end.
        fitted_windows: windows of the training text that the input probe is fitted to.
        smallest_kl: the smallest difference of KL(final ‖ layer) worth talking about, in nats.
        smallest_all, smallest_copyable: the smallest change of the loss worth talking about, in
            nats.
        smallest_share: the smallest difference of the share of input tokens recovered.
        resampling: of the intervals.
        seed: of what is held out and of the windows that the probe is fitted to.

    Raises `ValueError` for sizes that leave nothing to train or no middle.
    """

    texts: tuple[str, ...] = ("standard_library", "python_reference")
    vocabulary: int = 1024
    context: int = 128
    width: int = 128
    heads: int = 4
    blocks: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 700
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    strong_decay: float = 1.0
    evaluate_every: int = 100
    windows: tuple[int, int] = (32, 256)
    fitted_windows: int = 400
    smallest_kl: float = 0.1
    smallest_all: float = 0.02
    smallest_copyable: float = 0.05
    smallest_share: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = (self.steps, self.batch, self.evaluate_every, self.warm_up)
        if min(sizes) < 1 or self.context < 8 or not self.seeds:
            raise ValueError(
                "steps, batch, evaluate_every and warm_up must be at least 1, context at least 8, "
                f"and there must be a seed; got {sizes}, {self.context} and {self.seeds}"
            )
        if self.blocks < 2 or self.blocks % 2:
            raise ValueError(f"blocks must be an even number from 2 on, got {self.blocks}")
        if not 1 <= self.windows[0] <= self.windows[1]:
            raise ValueError(
                f"windows must be some at each point and no fewer at the end; got {self.windows}"
            )
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")

    @property
    def corpus(self) -> CorpusSettings:
        """What text, and how it is cut."""
        return CorpusSettings(self.texts, self.vocabulary, self.context, self.windows[1], self.seed)

    @property
    def shape(self) -> Shape:
        """The size of the networks."""
        return Shape(self.blocks, self.width, self.heads, self.context, self.vocabulary)

    @property
    def trainings(self) -> list[Training]:
        """All trainings; seed by seed, so that a run that is stopped has whole seeds."""
        return [Training(arm, seed) for seed in self.seeds for arm in ARMS]

    def optimization(self, training: Training) -> Optimization:
        """How a network is trained in an arm."""
        decays = {NO_DECAY: 0.0, STRONG_DECAY: self.strong_decay}
        decay = decays.get(training.arm, self.weight_decay)
        return Optimization(
            self.steps, self.learning_rate, self.warm_up, decay, self.evaluate_every
        )

    @classmethod
    def preset(cls, name: Preset) -> "UpbringingSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(seeds=(0,), steps=100, warm_up=20, windows=(16, 64), fitted_windows=100)
        return cls()
