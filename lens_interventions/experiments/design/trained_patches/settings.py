"""What experiments that train patches on held-out text have in common."""

from dataclasses import dataclass, field

from ....intervention.sources import source_names
from ....intervention.training.options import TrainingOptions
from ..contrasts import Resampling
from ..setting_checks import require_at_least, require_comparable


@dataclass(frozen=True, kw_only=True)
class TrainedPatchSettings:
    """Text and trainings, and what is measured on all of them.

    Attributes:
        layer: where the write enters.
        controls: the sources that are trained beside the true one.
        seeds: of the trainings; the sources share them.
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

    Raises `ValueError` for an unknown control, or sizes that leave nothing to train or to measure.
    """

    layer: int
    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    options: TrainingOptions
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
        if set(self.controls) - set(known) or len(set(self.controls)) < len(self.controls):
            raise ValueError(
                f"controls must be some of {', '.join(known)}, each once; got {self.controls}"
            )
        require_comparable(self.seeds, self.options)
        require_at_least(self, 1, "per_document", "copies", "batch", "steps")
        require_at_least(self, 2, "copy_length")
        if min(self.windows) < 1:
            raise ValueError(f"windows must be at least 1 and 1, got {self.windows}")

    @property
    def sources(self) -> tuple[str, ...]:
        """The true source, then the controls."""
        return ("true", *self.controls)

    def require_layer(self, n_layers: int) -> None:
        """Raise `ValueError` for a layer that a model of this depth lacks."""
        if not 0 <= self.layer < n_layers:
            raise ValueError(f"there is no layer {self.layer}: the model has {n_layers}, from 0 on")
