"""How does a word cast its influence back over a sentence that is to end in it?

The last_word experiment: its settings, its stage, what the lens reads along a sentence, what moves
from the request to it, its analysis and its figures. It may import `engine/`, `design/` and what
stands below experiments, and no other experiment. The requests are `materials.last_words`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LastWordSettings as LastWordSettings
from .stages import STAGES

_PLAN = Plan(
    "last_word",
    lambda preset, _bridge: LastWordSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def last_word(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LastWordSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Measure what a request for a last word does to the sentence before it.

    A chat model is asked for a sentence that ends in a word, for the same sentence with another
    word, and without one. The lens reads how likely every layer finds the word, at every token of
    the sentence that the model writes when asked, and of a fixed one. Then residuals of the
    request with the other word are put in the place of those of the request, at one layer and one
    part of the text at a time: from which part, and up to which layer, does the sentence take the
    word? And does the sentence end in it?

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With processes or a cluster as executor, not a bridge. Its
        tokenizer needs a chat template.
    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to measure, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there and ends in the same
        numbers. Without it nothing is kept but the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the units of work; by default this
        process does.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset and for a tokenizer without a chat template.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
