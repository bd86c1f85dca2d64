"""What does a model gain if it grows up with the true next token?

This package has the scratch experiment's settings, text, networks and their arms, trainings,
measurements during and after training, analysis and figures. It may import `engine/`, `design/` and
packages below experiments, and no other experiment. A new arm goes into `arms`, a new read-out into
`evaluation`.
"""

from concurrent.futures import Executor
from pathlib import Path
from typing import get_args

from ...model.argument_types import require_instance
from ..engine.presets import Preset
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .arms import ScratchTraining as ScratchTraining
from .models import StartingModel
from .models import TrainedModel as TrainedModel
from .models import trained_models as trained_models
from .settings import ScratchSettings as ScratchSettings
from .stages import STAGES


def scratch(
    *,
    preset: Preset = "quick",
    settings: ScratchSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Result:
    """Train small transformers with and without a write of the true next token where it is known.

    A learned map of the embedding of `x[i+1]` is added to the stream that enters one block, at
    every position i before the one that predicts. From that block up the network runs in two
    streams, as in `teacher_forced_logits`, so each prediction is what a sampler would compute. The
    map is trained with the network, from its first step. Other arms write the current token, the
    previous token, the next token of an earlier position, only a bias, or nothing at all, with as
    many parameters and on the same text in the same order. Networks of several depths are measured
    during and after training: the loss on copyable and other tokens of held-out text and on second
    copies of random tokens, and the change of the loss if the write is taken away or falsified. If
    `decoded` is set, they also go on freely at the end, by the likeliest token: how many texts end
    in a loop, how many 4-grams repeat an earlier one, and how many tokens of a copy are right.
    Knockouts tell which heads read the write, and whether as keys, by which they find a place, or
    as values, which they carry from there. Intervals resample documents and seeds.

    `trained_models(out)` returns the networks as bridges, with their patches.

    **Arguments:**

    - `preset`: "quick" or "full"; ignored if `settings` are given.
    - `settings`: settings to use instead of a preset.
    - `out`: the directory of the run. A run that was stopped continues there, from the last
        evaluation of its current training, and ends with the same numbers. Without it, only the
        result is kept.
    - `executor`: a `concurrent.futures.Executor` for the trainings; by default they run in this
        process.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, is damaged or belongs to another run;
    `ValueError` for an unknown preset, or too little text; `TypeError` for settings of another
    experiment.
    """
    chosen = ScratchSettings.preset(preset) if settings is None else settings
    require_instance("settings", chosen, ScratchSettings)
    presets = {name: ScratchSettings.preset(name) for name in get_args(Preset)}
    experiment = Experiment("scratch", chosen, STAGES, analyse, presets)
    return run(experiment, StartingModel(chosen), out=out, executor=executor, progress=progress)
