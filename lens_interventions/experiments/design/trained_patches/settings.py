"""Settings that experiments with trained patches share."""

from dataclasses import dataclass, field

from ....intervention.sources import source_names
from ....intervention.training.options import TrainingOptions
from ..contrasts import Resampling
from ..setting_checks import require_at_least, require_comparable


@dataclass(frozen=True, kw_only=True)
class TrainedPatchSettings:
    """Text, trainings and measurement of trained patches.

    Attributes:
        layer: the layer that the write enters.
        controls: the sources that are trained besides the true one.
        seeds: the seeds of the trainings, which all sources share.
        steps: how many steps each training makes.
        options: the options of each training; patience is None, so that all make the same number of
            steps.
        texts: the texts to read: "python_reference", "python_code", "prose", "docstrings",
            "standard_library", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT". Either all or none of the documents that share a passage
            are trained on.
        windows: how many windows of `options.window` tokens are trained on, and how many are
            measured at the end. `options.held_out_windows` others decide which step was best.
        samples: how many texts of `options.window` tokens the model writes itself, to preserve its
            predictions on them. A tenth is held out, so ten at least; 0 exactly if
            `options.change_penalty` is.
        per_document: the most windows of a document that are measured.
        copies: how many sequences of random tokens, which are repeated once.
        copy_length: how many tokens are repeated.
        batch: how many windows are measured at a time.
        smallest_all, smallest_copyable: the smallest change of the loss worth talking about, in
            nats. `smallest_copyable` also holds for second copies.
        resampling: how intervals are resampled.
        seed: the seed of the split and of the random tokens.

    Raises `ValueError` for an unknown control, sizes that leave nothing to train or to measure, or
    a penalty without samples.
    """

    layer: int
    controls: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    options: TrainingOptions
    texts: tuple[str, ...] = ("python_reference", "python_code")
    windows: tuple[int, int] = (480, 64)
    samples: int = 0
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
        if self.options.first_position >= self.options.window - 1:
            raise ValueError(
                f"the write begins at position {self.options.first_position}, and windows of "
                f"{self.options.window} tokens have nothing to write there: lower first_position"
            )
        if self.samples and self.samples < 10:
            raise ValueError(f"samples must be 0 or at least 10, got {self.samples}")
        if (self.samples > 0) != (self.options.change_penalty > 0):
            raise ValueError(
                "samples and options.change_penalty must both be above 0, or neither; got "
                f"{self.samples} and {self.options.change_penalty}"
            )
        if min(self.windows) < 1:
            raise ValueError(f"windows must be two numbers of at least 1, got {self.windows}")

    @property
    def sources(self) -> tuple[str, ...]:
        """The true source, then the controls."""
        return ("true", *self.controls)
