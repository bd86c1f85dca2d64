"""Settings of the loops experiment."""

from dataclasses import dataclass, field

from ...intervention.generation.sample_texts import TEXTS_AT_ONCE
from ...materials import prose
from ...measures.behaviour import MIN_LENGTH
from ..design.conditions import PatchSettings, spread_layers
from ..design.contrasts import Resampling
from ..design.rules import GREEDY, Rule
from ..design.setting_checks import require_at_least, require_different, require_modes
from ..engine.presets import Preset, require_preset


@dataclass(frozen=True)
class LoopsSettings:
    """Settings of the loops experiment; `LoopsSettings.preset` makes them.

    Prompts, passages and documents are divided by register, as evenly as their numbers allow,
    between a half that selects the cell of the patch and a half that gives the reported numbers.

    Attributes:
        layers, strengths, modes: the layers, strengths and modes of the grid.
        patch: the settings that all patches have in common.
        prompts: number of open-ended prompts in both halves together.
        new_tokens: tokens that are sampled for each prompt.
        search_prompts: number of prompts of the selection half on which every cell of the grid is
            tried.
        search_tokens: tokens that are sampled for each of these.
        temperatures: the temperatures at which the model is sampled with and without the patch.
        penalties, top_p, min_p, rule_temperatures: the other ways out of loops, one arm for each
            value, without a patch. Penalties decode greedily, like the patch; top-p and min-p
            sample at temperature 1.
        layer_contrasts: names of `design.rules.CONTRASTS`, such as "DoLa against lower layers",
            which decode greedily too, without a patch.
        contrast_penalties: the repetition penalties under which each of these decodes, one arm for
            each value; 1 is no penalty. The authors of DoLa use 1.2.
        passages: number of passages that are repeated, in both halves together.
        rounds: how many times each passage is said.
        documents: number of prose documents for the loss, in both halves together.
        document_tokens: how many tokens of each document are read, from its beginning.
        loss_budget: the largest increase of the loss, in nats, at which a cell can be chosen.
        batch: how many texts are sampled at a time, in one unit.
        shown: number of prompts of the report half whose samples are kept for readers, per
            condition.
        smallest_share: the smallest difference of a share worth talking about.
        smallest_log_odds: the smallest difference of the log-odds of another round worth talking
            about, in nats.
        resampling: how intervals and p-values are resampled.
        seed: the seed of the draws.
    """

    layers: tuple[int, ...]
    strengths: tuple[float, ...]
    modes: tuple[str, ...] = ("interpolate", "add", "correct")
    patch: PatchSettings = field(default_factory=PatchSettings)
    prompts: int = 72
    new_tokens: int = 256
    search_prompts: int = 20
    search_tokens: int = 96
    temperatures: tuple[float, ...] = (0.7, 1.0)
    penalties: tuple[float, ...] = (1.05, 1.1, 1.2)
    top_p: tuple[float, ...] = (0.9,)
    min_p: tuple[float, ...] = (0.1,)
    rule_temperatures: tuple[float, ...] = (0.4,)
    layer_contrasts: tuple[str, ...] = ("DoLa against lower layers",)
    contrast_penalties: tuple[float, ...] = (1.0, 1.2)
    passages: int = 16
    rounds: int = 8
    documents: int = 40
    document_tokens: int = 96
    loss_budget: float = 0.1
    batch: int = TEXTS_AT_ONCE
    shown: int = 12
    smallest_share: float = 0.1
    smallest_log_odds: float = 0.2
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.layers and self.strengths and self.modes):
            raise ValueError("give at least one layer, strength and mode")
        require_at_least(self, 2, "prompts", "passages", "documents", "rounds", "document_tokens")
        require_at_least(self, 1, "search_prompts", "batch", "shown")
        require_at_least(self, MIN_LENGTH, "search_tokens", "new_tokens")  # a loop is as long
        written = len(prose())
        if self.documents > written:
            raise ValueError(
                f"documents must be at most {written}, the texts of prose; got {self.documents}"
            )
        require_different(self, "layers", "strengths", "modes")
        require_modes(self.modes)
        # Rows are distinguished by the names of their rules.
        rules = [*map(str, (GREEDY, *self.sampled(), *self.rules()))]
        twice = sorted({name for name in rules if rules.count(name) > 1})
        if twice:
            raise ValueError(
                f"two arms would be the same, {', '.join(twice)}: leave out one, or values at "
                "which a rule does nothing"
            )

    @classmethod
    def preset(cls, name: Preset, n_layers: int) -> "LoopsSettings":
        """Settings for a model of `n_layers` layers.

        On the embedded model and two cores, "quick" takes about 4 minutes, and "full" takes 32 with
        a worker on each core and without the contrasts of layers.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(
                layers=spread_layers(n_layers, 3)[-2:],
                strengths=(0.1, 0.3),
                modes=("interpolate", "correct"),
                prompts=24,
                new_tokens=96,
                search_prompts=8,
                search_tokens=64,
                temperatures=(0.7,),
                penalties=(1.2,),
                rule_temperatures=(1.0,),
                min_p=(),
                layer_contrasts=(),
                passages=8,
                rounds=5,
                documents=12,
                document_tokens=64,
                batch=12,  # units of some 20 seconds on one core
            )
        return cls(layers=spread_layers(n_layers, 4), strengths=(0.03, 0.1, 0.3))

    def sampled(self) -> list[Rule]:
        """The sampling rules that are used with and without the patch: `temperatures`."""
        return [Rule(sample=True, temperature=value) for value in self.temperatures]

    def rules(self) -> list[Rule]:
        """The sampling rules without a patch, other than greedy and `temperatures`."""
        return [
            *(Rule(repetition_penalty=value) for value in self.penalties),
            *(
                Rule(sample=True, temperature=value)
                for value in self.rule_temperatures
                if value not in self.temperatures
            ),
            *(Rule(sample=True, top_p=value) for value in self.top_p),
            *(Rule(sample=True, min_p=value) for value in self.min_p),
            *(
                Rule(layer_contrast=name, repetition_penalty=value)
                for name in self.layer_contrasts
                for value in self.contrast_penalties
            ),
        ]
