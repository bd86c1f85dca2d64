"""Does seeing the true token help a model to copy?"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model, ModelSource
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .settings import CopyingSettings as CopyingSettings
from .settings import Preset as Preset
from .stages import compare_controls, report, select


def copying(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: CopyingSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Copying with the true next token patched in, and with controls; and the effect over depth.

    Random tokens said twice, sentences that call for a word from before, and natural text, where
    copyable tokens, others, and tokens after a surprise are told apart. All teacher-forced and
    exact. One half of the material chooses for each question: the true source alone shortlists the
    best cells (layer, strength and mode) of a few layers, and of these that is taken where it beats
    its best control by most. The other half reports. A verdict is about the true source minus the
    best control, paired.

    **Arguments:**

    - `model`, `out`, `executor`, `progress`: as in `run`.
    - `preset`: "quick" or "full", unless `settings` are given.

    Raises what `run` raises, `ValueError` for an unknown preset or settings that leave a half of
    the material without sequences.
    """
    if settings is None:
        n_layers = int(ModelSource(model).bridge().cfg.n_layers)
        settings = CopyingSettings.preset(preset, n_layers)
    stages = {"selection": select, "controls": compare_controls, "report": report}
    return run(
        Experiment("copying", settings, stages, analyse),
        model,
        out=out,
        executor=executor,
        progress=progress,
    )
