"""What a run of the reader experiment trains and measures."""

from dataclasses import dataclass, field, replace

from ...intervention.sources import source_names
from ...intervention.training.options import TrainingOptions
from ..design.contrasts import Resampling
from ..design.setting_checks import require_comparable
from ..engine.presets import Preset, require_preset

ALONE = "zero"
"""The source of the arm whose reader is trained without a write."""


@dataclass(frozen=True)
class ReaderSettings:
    """Settings of the reader experiment; `ReaderSettings.preset` makes them.

    Attributes:
        layer: where the write enters; the attention from there up is adapted.
        strength: of the write, in lengths of the residual; None to learn the write too.
        controls: the sources that are trained beside the true one; "zero" writes nothing (a
            learned write is then a bias).
        rank: of the updates.
        seeds: of the trainings; the arms share them.
        steps: of each training.
        options: of each training; patience is None, so that all make the same number of steps.
        texts: what is read: "python_reference", "python_code", "prose", "docstrings",
            "standard_library", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT". Documents that share a passage are all trained on or none.
        windows: how many windows of `options.window` tokens are trained on, and how many are
            measured at the end. `options.held_out_windows` others tell which step was best.
        per_document: how many windows of a document are measured at most.
        copies: how many sequences of random tokens, said twice.
        copy_length: tokens that are said twice.
        batch: windows that are measured at a time.
        smallest_all, smallest_copyable: the smallest change of the loss worth talking about, in
            nats; that of second copies is the latter.
        resampling: of the intervals.
        seed: of the split, and of the random tokens.

    Raises `ValueError` for an unknown control, one that is missing, or sizes that leave nothing to
    train or to measure.
    """

    layer: int
    strength: float | None = 0.2
    controls: tuple[str, ...] = (ALONE, "current", "shuffled")
    rank: int = 8
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
    texts: tuple[str, ...] = ("python_reference", "python_code")
    windows: tuple[int, int] = (480, 64)
    per_document: int = 2
    copies: int = 16
    copy_length: int = 40
    batch: int = 8
    smallest_all: float = 0.02
    smallest_copyable: float = 0.05
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        known = (*source_names("control"), *source_names("no news"))
        unknown = sorted(set(self.controls) - set(known))
        if unknown or ALONE not in self.controls or len(set(self.controls)) < len(self.controls):
            raise ValueError(
                f"controls must be {ALONE} and others of {', '.join(known)}, each once; got "
                f"{self.controls}"
            )
        require_comparable(self.seeds, self.options)
        sizes = (*self.windows, self.per_document, self.copies, self.batch, self.steps)
        if min(sizes) < 1 or self.copy_length < 2:
            raise ValueError(
                "windows, per_document, copies, batch and steps must be at least 1, copy_length "
                f"2; got {sizes} and {self.copy_length}"
            )

    @property
    def sources(self) -> tuple[str, ...]:
        """The true source, then the controls."""
        return ("true", *self.controls)

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "ReaderSettings":
        """Settings for a model of `n_layers` layers: "quick" for a look, "full" to report.

        The layer is the one at 0.73 of the depth. On the default model and two cores "quick" takes
        a quarter of an hour and "full" half an hour; on one busy core, four times as long.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        full = cls(layer=min(round(0.73 * n_layers), n_layers - 1))
        if name == "full":
            return full
        options = replace(full.options, evaluate_every=20)
        return replace(full, steps=60, options=options, windows=(240, 48), copies=12)
