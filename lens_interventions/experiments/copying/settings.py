"""What a run of the copying experiment measures."""

from dataclasses import dataclass, field

from ..design.conditions import PatchSettings, spread_layers
from ..design.material import CopyingMaterial
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class CopyingSettings(CopyingMaterial):
    """Settings of the copying experiment; `CopyingSettings.preset` makes them.

    They also have the fields of `CopyingMaterial`, which are given by keyword. One half of the
    material selects layer, strength and mode over the whole grid; the other half reports at the
    chosen cell alone, so it can be larger.

    Attributes:
        layers, strengths, modes: the grid.
        shortlist: how many cells, of different layers, are compared with controls.
        patch: the settings that all patches have in common.
    """

    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    modes: tuple[str, ...] = ("interpolate", "add", "correct")
    shortlist: int = 3
    patch: PatchSettings = field(default_factory=PatchSettings)

    def __post_init__(self) -> None:
        if not (self.layers and self.strengths and self.modes):
            raise ValueError("give at least one layer, strength and mode")
        super().__post_init__()

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "CopyingSettings":
        """Settings for a model of `n_layers` layers.

        On the default model and two cores "quick" takes about 4 minutes. "full" took an hour on one
        thread of a busy machine.

        Raises `ValueError` for another name.
        """
        require_preset(name)
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
        return cls(layers=spread_layers(n_layers, 6), strengths=(0.03, 0.1, 0.3, 1.0))
