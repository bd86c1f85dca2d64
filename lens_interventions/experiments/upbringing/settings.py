"""What a run of the upbringing experiment trains and measures."""

from dataclasses import dataclass

from ..design.small_networks.settings import SmallNetworkSettings
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Optimization
from ..engine.presets import Preset, require_preset
from .arms import ARMS, NO_DECAY, STRONG_DECAY, Training


@dataclass(frozen=True, kw_only=True)
class UpbringingSettings(SmallNetworkSettings):
    """Settings of the upbringing experiment; `UpbringingSettings.preset` makes them.

    They also have the fields of `SmallNetworkSettings`, of which `weight_decay` is that of all arms
    but two.

    Attributes:
        blocks: of each network, an even number.
        strong_decay: in the arm of that name. A weight without a gradient shrinks by the sum of
            learning rate times decay: in short trainings 0.1 hardly acts.
        fitted_windows: windows of the training text that the input probe is fitted to.
        smallest_kl: the smallest difference of KL(final ‖ layer) worth talking about, in nats.
        smallest_share: the smallest difference of the share of input tokens recovered.

    Raises `ValueError` for sizes that leave nothing to train or no middle.
    """

    blocks: int = 4
    steps: int = 700
    strong_decay: float = 1.0
    windows: tuple[int, int] = (32, 256)
    fitted_windows: int = 400
    smallest_kl: float = 0.1
    smallest_share: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 2 or self.blocks % 2:
            raise ValueError(f"blocks must be an even number from 2 on, got {self.blocks}")

    @property
    def shape(self) -> Shape:
        """The size of the networks."""
        return self.shape_of(self.blocks)

    @property
    def trainings(self) -> list[Training]:
        """All trainings; seed by seed, so that a run that is stopped has whole seeds."""
        return [Training(arm, seed) for seed in self.seeds for arm in ARMS]

    def optimization(self, training: Training) -> Optimization:
        """How a network is trained in an arm."""
        decays = {NO_DECAY: 0.0, STRONG_DECAY: self.strong_decay}
        decay = decays.get(training.arm, self.weight_decay)
        return self.optimization_of(self.steps, decay)

    @classmethod
    def preset(cls, name: Preset) -> "UpbringingSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(seeds=(0,), steps=100, warm_up=20, windows=(16, 64), fitted_windows=100)
        return cls()
