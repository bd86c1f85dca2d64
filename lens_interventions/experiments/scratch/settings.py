"""What a run of the scratch experiment trains and measures."""

from dataclasses import dataclass, field
from typing import Literal

from ..design.contrasts import Resampling
from ..design.small_networks.corpus import CorpusSettings
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Optimization
from ..engine.presets import Preset, require_preset
from .arms import ARMS, NONE, ScratchTraining
from .network import two_stream_flops


@dataclass(frozen=True)
class ScratchSettings:
    """Settings of the scratch experiment; `ScratchSettings.preset` makes them.

    Attributes:
        texts: what is trained on: "standard_library", "python_reference", a path for
            `materials.read_texts`, or "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT". Every
            tenth document is held out.
        vocabulary: tokens of the tokenizer that is trained on them.
        context: tokens that a network reads at a time.
        width: of the residual stream.
        heads: of each block.
        networks: pairs of how many blocks a network has and which one is written to.
        arms: "none", "true" and at least one control of "current", "previous", "shuffled" and
            "zero", which writes a bias alone.
        seeds: of the trainings; the arms share them.
        steps: of the optimizer.
        equal: "steps", or "flops" to grant the arm without a write as many more steps as a step
            with two streams costs.
        batch: texts to a step.
        learning_rate, warm_up, weight_decay: of AdamW, with a cosine to zero.
        evaluate_every: steps between points of the curves.
        windows: how many held-out windows are measured at each point, and at the end.
        copies: how many texts of random tokens said twice.
        surprising: nats from which on a token counts as a surprise, by counts of pairs.
        smallest_all, smallest_copyable: the smallest change of the loss worth talking about, in
            nats.
        resampling: of the intervals.
        seed: of what is held out and of the random tokens.

    Raises `ValueError` for an unknown arm, none to compare, or sizes that leave nothing to train.
    """

    texts: tuple[str, ...] = ("standard_library", "python_reference")
    vocabulary: int = 1024
    context: int = 128
    width: int = 128
    heads: int = 4
    networks: tuple[tuple[int, int], ...] = ((1, 0), (2, 1))
    arms: tuple[str, ...] = ("none", "true", "current")
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 1000
    equal: Literal["steps", "flops"] = "steps"
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    evaluate_every: int = 100
    windows: tuple[int, int] = (64, 256)
    copies: int = 16
    surprising: float = 6.0
    smallest_all: float = 0.02
    smallest_copyable: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.arms) - set(ARMS)
        if unknown or not {NONE, "true"} < set(self.arms) or len(set(self.arms)) < len(self.arms):
            raise ValueError(
                f"arms must be none, true and controls of {', '.join(ARMS[2:])}, each once; got "
                f"{self.arms}"
            )
        sizes = (self.steps, self.batch, self.evaluate_every, self.warm_up, self.copies)
        if min(sizes) < 1 or self.context < 8 or not self.networks or not self.seeds:
            raise ValueError(
                "steps, batch, evaluate_every, warm_up and copies must be at least 1, context at "
                "least 8, and there must be a network and a seed; got "
                f"{sizes}, {self.context}, {self.networks} and {self.seeds}"
            )
        if not 1 <= self.windows[0] <= self.windows[1]:
            raise ValueError(
                f"windows must be some at each point and no fewer at the end; got {self.windows}"
            )
        for blocks, entry in self.networks:
            if not 0 <= entry < blocks:
                raise ValueError(
                    f"networks must be pairs of blocks and the block that is written to, counted "
                    f"from 0; got {(blocks, entry)}"
                )
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")

    @property
    def corpus(self) -> CorpusSettings:
        """What text, and how it is cut."""
        return CorpusSettings(self.texts, self.vocabulary, self.context, self.windows[1], self.seed)

    def shape(self, blocks: int) -> Shape:
        """The size of a network."""
        return Shape(blocks, self.width, self.heads, self.context, self.vocabulary)

    @property
    def trainings(self) -> list[ScratchTraining]:
        """All trainings; seed by seed, so that a run that is stopped has whole seeds."""
        return [
            ScratchTraining(blocks, entry, arm, seed)
            for seed in self.seeds
            for blocks, entry in self.networks
            for arm in self.arms
        ]

    def optimization(self, training: ScratchTraining) -> Optimization:
        """How a network is trained in an arm."""
        steps = self.steps
        if self.equal == "flops" and training.arm == NONE:
            shape = self.shape(training.blocks)
            steps = round(steps * two_stream_flops(shape, training.entry) / shape.flops)
        return Optimization(
            steps, self.learning_rate, self.warm_up, self.weight_decay, self.evaluate_every
        )

    @classmethod
    def preset(cls, name: Preset) -> "ScratchSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(networks=((1, 0),), seeds=(0,), steps=400, windows=(32, 128))
        return cls()
