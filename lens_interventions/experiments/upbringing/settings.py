"""Settings of the upbringing experiment: its trainings and measurements."""

from dataclasses import dataclass

from ..design.setting_checks import require_at_least
from ..design.small_networks.settings import SmallNetworkSettings
from ..design.small_networks.shape import Shape
from ..design.small_networks.training import Optimization
from ..engine.presets import Preset, require_preset
from .arms import ARMS, NO_DECAY, STRONG_DECAY, Training


@dataclass(frozen=True, kw_only=True)
class UpbringingSettings(SmallNetworkSettings):
    """Settings of the upbringing experiment; `UpbringingSettings.preset` makes them.

    They also have the fields of `SmallNetworkSettings`, of which `weight_decay` holds for all arms
    except two.

    Attributes:
        blocks: the number of blocks of each network, which is even.
        strong_decay: the weight decay of the arm of that name. A weight without a gradient shrinks
            by the sum of learning rate times decay, so 0.1 hardly acts in short trainings.
        fitted_windows: how many windows of the training text the input probe is fitted to.
        smallest_kl: the smallest difference of KL(final ‖ layer) worth talking about, in nats.
        smallest_share: the smallest difference of the share of input tokens recovered.

    Raises `ValueError` for sizes that leave nothing to train, or no middle layer.
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
        # One window in ten chooses the probe's ridge.
        require_at_least(self, 10, "fitted_windows")

    @property
    def shape(self) -> Shape:
        """The size of the networks."""
        return self.shape_of(self.blocks)

    @property
    def trainings(self) -> list[Training]:
        """All trainings, seed by seed, so that a run that is stopped has complete seeds."""
        return [Training(arm, seed) for seed in self.seeds for arm in ARMS]

    def optimization(self, training: Training) -> Optimization:
        """The optimization of a training's network."""
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
