"""Settings of the reader experiment: its trainings and measurements."""

from dataclasses import dataclass, field, replace

from ...intervention.adapted_reader import Adapt, require_adapt
from ...intervention.training.checks import check_strength
from ...intervention.training.options import TrainingOptions
from ..design.conditions import layer_at
from ..design.setting_checks import require_at_least
from ..design.trained_patches.settings import TrainedPatchSettings
from ..engine.presets import Preset, require_preset

ALONE = "zero"
"""The source of the arm whose reader is trained without a write."""


@dataclass(frozen=True, kw_only=True)
class ReaderSettings(TrainedPatchSettings):
    """Settings of the reader experiment; `ReaderSettings.preset` makes them.

    The blocks from `layer` up are adapted. Among the controls is "zero", which writes nothing (a
    learned write is then a bias).

    Attributes:
        strength: the strength of the write, in lengths of the residual; None to learn the write
            too.
        adapt: what is adapted: "attention", or "attention+mlp".
        rank: the rank of the updates, and of the map that is learned if the write is.

    Raises `ValueError` in the cases of `TrainedPatchSettings`, without the control "zero", and for
    an unknown `adapt`.
    """

    controls: tuple[str, ...] = (ALONE, "current", "shuffled")
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 120
    options: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            scale="norm",
            window=128,
            batch_size=4,
            learning_rate=1e-2,
            evaluate_every=30,
            patience=None,
            held_out_windows=8,
        )
    )
    strength: float | None = 0.2
    adapt: Adapt = "attention"
    rank: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_adapt(self.adapt)
        require_at_least(self, 1, "rank")
        check_strength(self.strength, self.options)
        if ALONE not in self.controls:
            raise ValueError(f"{ALONE} must be among the controls, got {self.controls}")

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "ReaderSettings":
        """Settings for a model of `n_layers` layers: "quick" for a look, "full" to report.

        The layer is the one at 0.73 of the depth. On the embedded model and two cores "quick" takes
        a quarter of an hour and "full" half an hour; on one busy core, four times as long.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        full = cls(layer=layer_at(0.73, n_layers))
        if name == "full":
            return full
        options = replace(full.options, evaluate_every=20)
        return replace(full, steps=60, options=options, windows=(240, 48), copies=12)
