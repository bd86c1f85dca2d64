"""Settings of the scratch experiment: its trainings and measurements."""

from dataclasses import dataclass
from typing import Literal

from ...measures.behaviour import MIN_LENGTH
from ..design.conditions import LONGER
from ..design.setting_checks import require_different
from ..design.small_networks.settings import SmallNetworkSettings
from ..design.small_networks.training import Optimization
from ..engine.presets import Preset, require_preset
from .arms import ARMS, NONE, ScratchTraining
from .cost import steps_for_equal_flops


@dataclass(frozen=True, kw_only=True)
class ScratchSettings(SmallNetworkSettings):
    """Settings of the scratch experiment; `ScratchSettings.preset` makes them.

    They also have the fields of `SmallNetworkSettings`.

    Attributes:
        networks: pairs of the number of blocks of a network and the block that is written to.
        arms: "none", "true" and controls of "current", "previous", "shuffled" and "zero", which
            writes only a bias; at least one control unless `equal` is "flops".
        equal: "steps", or "flops" to train one more arm, "none-longer", without a write for as many
            more steps as the second stream costs, with a cosine of that length.
        copies: how many texts of random tokens, which are repeated once.
        surprising: the nats from which a token counts as a surprise, by counts of pairs.
        decoded: how many windows, and texts of random tokens, are continued greedily at the end; no
            more than there are.
        smallest_share: the smallest difference of the share of loops worth talking about.

    Raises `ValueError` for an unknown arm, if there is no arm to compare, or for sizes that leave
    nothing to train.
    """

    networks: tuple[tuple[int, int], ...] = ((1, 0), (2, 1))
    arms: tuple[str, ...] = ("none", "true", "current")
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    equal: Literal["steps", "flops"] = "steps"
    copies: int = 16
    surprising: float = 6.0
    decoded: int = 0
    smallest_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = set(self.arms) - set(ARMS)
        others = set(self.trained_arms) - {NONE, "true"}
        if unknown or not {NONE, "true"} <= set(self.arms) or len(set(self.arms)) < len(self.arms):
            raise ValueError(
                f"arms must be none, true and controls of {', '.join(ARMS[2:])}, each once; got "
                f"{self.arms}"
            )
        if not others:
            raise ValueError(
                'with the arms none and true alone, equal must be "flops"; otherwise give a control'
            )
        if self.copies < 1 or self.decoded < 0 or not self.networks:
            raise ValueError(
                "copies must be at least 1, decoded at least 0, and there must be a network; got "
                f"{self.copies}, {self.decoded} and {self.networks}"
            )
        if self.decoded and self.context - self.context // 2 < MIN_LENGTH:
            raise ValueError(
                f"the second half of {self.context} tokens is too short to see a loop of "
                f"{MIN_LENGTH}: give a longer context, or decoded=0"
            )
        if self.equal not in ("steps", "flops"):
            raise ValueError(f'equal must be "steps" or "flops", got {self.equal!r}')
        require_different(self, "networks")
        for blocks, entry in self.networks:
            if not 0 <= entry < blocks:
                raise ValueError(
                    f"networks must be pairs of blocks and the block that is written to, counted "
                    f"from 0; got {(blocks, entry)}"
                )

    @property
    def trained_arms(self) -> tuple[str, ...]:
        """All arms; the arm of equal operations, if any, is the last."""
        return (*self.arms, LONGER) if self.equal == "flops" else self.arms

    @property
    def trainings(self) -> list[ScratchTraining]:
        """All trainings, seed by seed, so that a run that is stopped has complete seeds."""
        return [
            ScratchTraining(blocks, entry, arm, seed)
            for seed in self.seeds
            for blocks, entry in self.networks
            for arm in self.trained_arms
        ]

    def optimization(self, training: ScratchTraining) -> Optimization:
        """The optimization of a training's network."""
        steps = self.steps
        if training.arm == LONGER:
            steps = steps_for_equal_flops(self.shape_of(training.blocks), training.entry, steps)
        return self.optimization_of(steps, self.weight_decay)

    @classmethod
    def preset(cls, name: Preset) -> "ScratchSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(networks=((1, 0),), seeds=(0,), steps=400, windows=(32, 128), decoded=16)
        return cls(decoded=128)
