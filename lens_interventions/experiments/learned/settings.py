"""Settings of the experiment with learned writes: its trainings and measurements."""

from dataclasses import dataclass, field, replace

from ... import materials
from ...intervention.sources import SOURCES, Draws, source_names
from ...intervention.training.options import TrainingOptions
from ...measures.behaviour import MIN_LENGTH
from ...model.points import require_blocks
from ..design.conditions import layer_at
from ..design.contrasts import Resampling
from ..design.material import CopyingMaterial
from ..design.setting_checks import (
    require_at_least,
    require_bias,
    require_comparable,
    require_different,
)
from ..engine.presets import Preset, require_preset

QUESTIONS = ("after a surprise", "random copies", "rare words", "free copies", "loops")
"""The names of the questions that are not about a text alone, which is called as its source is."""

AFTER_A_SURPRISE, RANDOM_COPIES, RARE_WORDS, FREE_COPIES, LOOPS = QUESTIONS

_DRAWS: tuple[Draws, ...] = ("nothing", "a position", "a token")


def control_sources() -> tuple[str, ...]:
    """Sources that are trained like the true one, and carry no news of the next token.

    Those that know most about the text come first. Of controls that do equally well, the first is
    reported as the best. A random direction is left out, because a map has nothing to learn from
    it.
    """
    tokens = [name for name in source_names("control") if SOURCES[name].draws in _DRAWS]
    tokens.sort(key=lambda name: _DRAWS.index(SOURCES[name].draws))
    return (*tokens, *source_names("no news"))


def trained_sources() -> tuple[str, ...]:
    """The true source, then the controls."""
    return (*source_names("true"), *control_sources())


@dataclass(frozen=True)
class LearnedSettings:
    """Settings of the experiment; `LearnedSettings.preset` makes them.

    Attributes:
        layer: the layer of the main comparison's writes.
        rank: the rank of their maps; None for full maps.
        seeds: the seeds of the trainings; every source is trained once with each.
        steps: of each training.
        options: the options of each training; patience is None, so that all make the same number of
            steps.
        corpus: the text to train on, named as in `CopyingMaterial.texts`, without the documents
            that are measured.
        material: the material to measure on.
        sweep_layers: layers to train at besides the main one; without any, nothing is swept.
        sweep_ranks: ranks to train at the best of the layers, on the selection half.
        sweep_steps: how many steps each training of the sweeps makes; it must differ from `steps`,
            which distinguishes the two.
        sweep_controls: the controls that the sweeps train besides the true source.
        sweep_seed: the seed of the trainings of the sweeps.
        sampled_prompts: how many open-ended prompts are continued greedily under every write.
        sampled_tokens: how many new tokens each of these gets.
        sampled_copies: how many sequences of random tokens on each half have their second copy
            continued.
        smallest_share: the smallest difference of loops or right copies worth talking about.
        read_sequences: how many sequences of random tokens, which are repeated once, attention is
            read on.
        directions: how many singular directions of the learned map are read.
    """

    layer: int
    rank: int | None = 64
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 150
    options: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            window=128, batch_size=3, patience=None, held_out_windows=16
        )
    )
    corpus: str = "python_reference"
    material: CopyingMaterial = field(
        default_factory=lambda: CopyingMaterial(
            induction_sequences=(24, 64),
            template_words=(1, 2),
            texts=("prose", "python_reference", "python_code"),
            documents=(10, 20),
            batch=4,
        )
    )
    sweep_layers: tuple[int, ...] = ()
    sweep_ranks: tuple[int, ...] = ()
    sweep_steps: int = 50
    sweep_controls: tuple[str, ...] = ("current",)
    sweep_seed: int = 0
    sampled_prompts: int = 64
    sampled_tokens: int = 128
    sampled_copies: int = 16
    smallest_share: float = 0.1
    read_sequences: int = 4
    directions: int = 8

    def __post_init__(self) -> None:
        require_comparable(self.seeds, self.options)
        if self.options.write_penalty or self.options.change_penalty:
            raise ValueError(
                "these trainings have no penalties, got "
                f"write_penalty={self.options.write_penalty} and "
                f"change_penalty={self.options.change_penalty}: set both to 0, or use the "
                "increment experiment"
            )
        taken = [text for text in self.material.texts if text in QUESTIONS]
        if taken:
            raise ValueError(
                f"the text {taken[0]!r} has the name of a question about something else: write "
                f"./{taken[0]}, or rename the file"
            )
        require_at_least(self, 2, "sampled_prompts")
        written = len(materials.prompts())
        if self.sampled_prompts > written:
            raise ValueError(
                f"sampled_prompts must be at most {written}, got {self.sampled_prompts}: further "
                "ones would be beginnings of documents, and writes may be trained on those"
            )
        require_at_least(self, 1, "steps", "sampled_copies", "read_sequences", "directions")
        if self.sweep_layers:
            require_at_least(self, 1, "sweep_steps")
        require_at_least(self, 0, "sweep_seed")
        require_bias(control_sources(), self.options)
        require_at_least(self, MIN_LENGTH, "sampled_tokens")  # a loop is as long
        require_different(self, "sweep_layers", "sweep_ranks", "sweep_controls")
        unknown = sorted(set(self.sweep_controls) - set(control_sources()))
        if unknown or not self.sweep_controls:
            raise ValueError(
                f"sweep_controls must be some of {', '.join(control_sources())}; got "
                f"{self.sweep_controls}"
            )
        if self.sweep_ranks and not self.sweep_layers:
            raise ValueError("ranks are swept at the best of sweep_layers: give those too")
        if self.sweep_layers and self.sweep_steps == self.steps:
            raise ValueError(
                f"sweep_steps and steps are both {self.steps}: the sweeps would be counted among "
                "the seeds of the main comparison; give the sweeps fewer steps"
            )

    def require_fit(self, n_layers: int, d_model: int) -> None:
        """Raise `ValueError` for a layer or rank beyond a model of this depth and width."""
        require_blocks([self.layer, *self.sweep_layers], n_layers)
        ranks = [r for r in (self.rank, *self.sweep_ranks) if r is not None]
        beyond = [rank for rank in ranks if not 1 <= rank <= d_model]
        if beyond:
            raise ValueError(
                f"there is no map of rank {beyond[0]}: ranks go from 1 to the model's width, "
                f"{d_model}"
            )

    @property
    def resampling(self) -> Resampling:
        """How intervals and p-values are resampled."""
        return self.material.resampling

    @classmethod
    def preset(cls, name: Preset, n_layers: int, d_model: int | None = None) -> "LearnedSettings":
        """Settings for a model of `n_layers` layers, with ranks that fit a width of `d_model`.

        The layer is the one at 0.73 of the depth. "quick" has no sweeps.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        rank = 64 if name == "full" else 16
        full = cls(
            layer=layer_at(0.73, n_layers), rank=rank if d_model is None else min(rank, d_model)
        )
        if name == "full":
            return full.with_sweeps(n_layers, d_model)
        return replace(
            full,
            seeds=(0,),
            steps=10,
            options=replace(
                full.options, window=64, batch_size=4, evaluate_every=10, held_out_windows=4
            ),
            material=replace(
                full.material,
                induction_sequences=(4, 8),
                template_words=(1, 1),
                documents=(4, 6),
                document_tokens=64,
                batch=3,
            ),
            sampled_prompts=8,
            sampled_tokens=48,
            sampled_copies=4,
            read_sequences=1,
        )

    def with_sweeps(self, n_layers: int, d_model: int | None = None) -> "LearnedSettings":
        """These settings with a coarse sweep over layers, and one over ranks at the best layer.

        Ranks beyond the width `d_model` are left out.
        """
        layers = {layer_at(depth, n_layers) for depth in (0.4, 0.6, 0.73, 0.83, 0.93)}
        return replace(
            self,
            sweep_layers=tuple(sorted(layers)),
            sweep_ranks=tuple(r for r in (4, 16, 64, 256) if d_model is None or r <= d_model),
            sweep_steps=max(self.steps // 3, 1),
        )
