"""Settings of the increment experiment: its trainings and measurements."""

from dataclasses import dataclass, field, replace

from ...intervention.training.options import TrainingOptions
from ..design.conditions import layer_at
from ..design.setting_checks import require_at_least, require_bias
from ..design.trained_patches.settings import TrainedPatchSettings
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True, kw_only=True)
class IncrementSettings(TrainedPatchSettings):
    """Settings of the increment experiment; `IncrementSettings.preset` makes them.

    Attributes:
        rank: the rank of the maps, both of the base and of the increments; None for full maps.
        base_steps: how many steps train the base, whose seed is the first of `seeds`.
        learning_rates: peak learning rates to try, first for the base and then for the true token's
            increment. The base is trained at its best rate, and all increments at the best rate of
            the true token's. The best rate has the lowest loss at the end; penalties do not count.
        pilot_steps: how many steps each trial makes.

    Raises `ValueError` in the cases of `TrainedPatchSettings`, and without a control or a rate.
    """

    controls: tuple[str, ...] = ("shuffled",)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 120
    options: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            scale="norm",
            window=128,
            batch_size=4,
            evaluate_every=40,
            patience=None,
            held_out_windows=24,
        )
    )
    texts: tuple[str, ...] = ("python_reference", "docstrings", "python_code")
    windows: tuple[int, int] = (2400, 128)
    rank: int | None = 64
    base_steps: int = 300
    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    pilot_steps: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "base_steps", "pilot_steps")
        if not self.controls or not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(
                "there must be a control and a learning rate above 0; got "
                f"{self.controls} and {self.learning_rates}"
            )
        require_bias(self.controls, self.options)

    def options_at(self, rate: float) -> TrainingOptions:
        """The options of a training whose learning rate peaks at `rate`."""
        return replace(self.options, learning_rate=rate)

    @classmethod
    def preset(cls, name: Preset, n_layers: int, d_model: int | None = None) -> "IncrementSettings":
        """Settings for a model of `n_layers` layers: "quick" for a look, "full" to report.

        The layer is the one at 0.77 of the depth. Of five layers in the embedded model's
        first-order map on the Python reference, this one promises most for a linear write that sees
        the next token as well as the current one, though in an interval that contains zero. Ranks
        do not exceed the width `d_model`.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        full = cls(layer=layer_at(0.77, n_layers))
        if d_model is not None:
            full = replace(full, rank=min(64, d_model))
        if name == "full":
            return full
        return replace(
            full,
            seeds=(0, 1),
            steps=20,
            base_steps=40,
            pilot_steps=10,
            options=replace(full.options, evaluate_every=10, held_out_windows=8),
            windows=(240, 32),
            copies=8,
        )
