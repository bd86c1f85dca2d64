"""What a run of the copying experiment measures."""

from dataclasses import dataclass, field

from ...intervention.losses.scopes import SURPRISING
from ..design.conditions import PatchSettings, spread_layers
from ..design.forms import FORMS, PLAIN
from ..design.material import CopyingMaterial
from ..design.setting_checks import require_at_least, require_different, require_modes
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class CopyingSettings(CopyingMaterial):
    """Settings of the copying experiment; `CopyingSettings.preset` makes them.

    They also have the fields of `CopyingMaterial`, which are given by keyword. One half of the
    material selects layer, strength, mode and form. The other half is measured only at the chosen
    cells, so it can be larger. `surprising` stays at 6 nats: the forms that patch surprising tokens
    and the slopes after surprises have this threshold, and another would leave tokens that count as
    surprising unpatched.

    Attributes:
        strengths, modes: the strengths and modes of the grid.
        layers: the layers of the grid. If None, slopes at every layer choose, for each question,
            the `mapped` layers at which a weak patch promises most, and the `mapped` layers at
            which it is furthest ahead of every control.
        mapped: see `layers`.
        forms: names in `design.forms` of the forms that are tried besides the plain patch.
        form_strengths: the strengths of the forms, which have modes of their own.
        temperatures: a coarse grid of temperatures for the unpatched model. Multiples of the best
            one, from 0.6 to 1.6, are tried as well, and the best of all is a control.
        repeat_texts, repeat_documents, repeat_tokens: like `texts`, `documents` and
            `document_tokens`, for the text on which later repeats of a surprising token are
            measured.
        shortlist: how many cells, of different layers, are compared with controls.
        patch: the settings that all patches have in common.
    """

    strengths: tuple[float, ...]
    layers: tuple[int, ...] | None = None
    mapped: int = 1
    modes: tuple[str, ...] = ("interpolate", "add", "correct")
    forms: tuple[str, ...] = ()
    form_strengths: tuple[float, ...] = (0.03, 0.3)
    temperatures: tuple[float, ...] = (0.9, 1.1, 1.2, 1.4)
    repeat_texts: tuple[str, ...] = ("docstrings",)
    repeat_documents: tuple[int, int] = (32, 64)
    repeat_tokens: int = 96
    shortlist: int = 2
    patch: PatchSettings = field(default_factory=PatchSettings)

    def __post_init__(self) -> None:
        if self.layers == () or not (self.strengths and self.modes):
            raise ValueError("give at least one layer, strength and mode")
        unknown = sorted({*self.forms} - {*FORMS} | {*self.forms} & {PLAIN})
        if unknown:
            raise ValueError(
                f"forms must be some of {', '.join(name for name in FORMS if name != PLAIN)}; got "
                f"{unknown}"
            )
        require_at_least(self, 1, "mapped", "shortlist")
        if 1.0 in self.temperatures:
            raise ValueError(
                f"temperatures must not include 1, which changes nothing; got {self.temperatures}"
            )
        if not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError(f"give one temperature or more, each above 0; got {self.temperatures}")
        require_modes(self.modes)
        if self.layers is not None:
            require_different(self, "layers")
        require_different(self, "strengths", "modes", "forms", "form_strengths", "temperatures")
        if self.surprising != SURPRISING:
            raise ValueError(
                f"surprising must be {SURPRISING:g} in the copying experiment, since its forms and "
                f"its slopes have this threshold; got {self.surprising}: leave it out"
            )
        super().__post_init__()

    @property
    def repeats(self) -> CopyingMaterial:
        """The text on which repeats of surprising tokens are measured."""
        return CopyingMaterial(
            texts=self.repeat_texts,
            documents=self.repeat_documents,
            document_tokens=self.repeat_tokens,
            batch=self.batch,
            seed=self.seed,
        )

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "CopyingSettings":
        """Settings for a model of `n_layers` layers.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(
                layers=spread_layers(n_layers, 2),
                strengths=(0.03, 0.1),
                modes=("interpolate", "correct"),
                forms=("surprised output",),
                form_strengths=(0.1,),
                temperatures=(1.1,),
                induction_sequences=(6, 12),
                template_words=(1, 1),
                documents=(4, 8),
                document_tokens=96,
                repeat_documents=(8, 24),
                shortlist=1,
                batch=3,  # units of some 20 seconds on one core
            )
        return cls(
            strengths=(0.01, 0.03, 0.1),
            forms=tuple(name for name in FORMS if name != PLAIN),
            form_strengths=(0.1,),
            induction_sequences=(12, 60),
            template_words=(1, 4),
            induction_length=32,
            texts=("python_reference", "prose", "docstrings"),
            documents=(6, 60),
            document_tokens=128,
            repeat_documents=(32, 500),
            shortlist=1,
        )
