"""How does a word cast its influence back over a sentence that should end in it?

This package has the last_word experiment's settings, stage, readings along a sentence, exchanges of
residuals between requests, analysis and figures. It may import `engine/`, `design/` and packages
below experiments, and no other experiment. The requests are `materials.last_words`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import LastWordSettings as LastWordSettings
from .stages import STAGES

PLAN: Plan[LastWordSettings] = Plan(
    "last_word",
    lambda preset, _size: LastWordSettings.preset(preset),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def last_word(
    model: Model = None,
    *,
    preset: Preset = "quick",
    settings: LastWordSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Measure how a request for a last word affects the sentence before that word.

    A chat model is asked for a sentence that ends in a word, for the same sentence with another
    word, and for the same sentence without a word. The lens reads how likely every layer finds the
    word, at every token of the sentence that the model then writes, and of a fixed sentence. Then
    residuals of the request are replaced by those of the request with the other word, at one layer
    and in one part of the text at a time. This shows from which part, and up to which layer, the
    sentence takes the word. The experiment also measures whether the sentence ends in the word.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With an executor of other processes, it must not be a
        bridge. Its tokenizer needs a chat template.
    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there and ends with the same
        numbers. Without it, only the result is kept.
    - `executor`: a `concurrent.futures.Executor` for the units of work; by default they run in this
        process.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset, for a tokenizer without a chat template, and for more parts
    than a sentence has tokens.
    """
    return PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
