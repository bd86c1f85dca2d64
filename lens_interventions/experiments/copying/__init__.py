"""Does seeing the true token help a model to copy?

The copying experiment: its settings, its questions, the map that chooses layers, its stages and
what they choose, where the lens has the word that is due, its analysis and its figures. It may
import `engine/`, `design/` and what stands below experiments, and no other experiment. A new
question goes into `questions`; what other experiments measure too goes into `design/`.
"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.presets import Plan, Preset
from ..engine.results import Result
from .analysis import analyse
from .settings import CopyingSettings as CopyingSettings
from .stages import STAGES

_PLAN = Plan(
    "copying",
    lambda preset, bridge: CopyingSettings.preset(preset, int(bridge.cfg.n_layers)),
    lambda _settings, _bridge: STAGES,
    analyse,
)


def copying(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: CopyingSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Measure copying with the true next token patched in, and with controls.

    The material is random tokens said twice, sentences that call for a word from before, and
    natural text: copyable tokens, other tokens, tokens after a surprise, and later repeats of
    tokens that were surprising where they first stood, patched there alone. All of it is
    teacher-forced and exact. One half of the material chooses for each question. Slopes of weak
    patches choose layers, unless the settings name them. There the true source alone shortlists
    the best cells (layer, strength, mode and form of the patch), and of these the chosen one is
    where it beats its best control by most. The other half reports. A verdict is about the true
    source against no patch and every control there, paired; one of the controls is the unpatched
    model at a temperature fitted on the first half.

    **Arguments:**

    - `model`: a bridge; a name or directory for `load_model`, by default the embedded model; or a
        function that returns a bridge. With processes or a cluster as executor, not a bridge.
    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to measure, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there and ends in the same
        numbers. Without it nothing is kept but the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the units of work; by default this
        process does.
    - `progress`: show a bar with the time left, stage by stage.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset or settings that leave a half of the material without
    sequences.
    """
    return _PLAN.run(model, preset, settings, out=out, executor=executor, progress=progress)
