"""What does a model gain that grows up with the true next token?

The scratch experiment: its settings, the text, the networks and their arms, the trainings, what is
measured of them on the way, its analysis and its figures. It may import `engine/`, `design/` and
what stands below experiments, and no other experiment. A new arm goes into `arms`, a new read-out
into `evaluation`.
"""

from concurrent.futures import Executor
from pathlib import Path
from typing import get_args

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
    preset: Preset = "quick",
    *,
    settings: ScratchSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Train small transformers with the true next token written where it is known, and without.

    A learned map of the embedding of `x[i+1]` is added to the stream that enters one block at every
    position i before the one that predicts: two streams from there, as in
    `teacher_forced_logits`, so that each prediction is what a sampler would compute. The map is
    trained with the network, from its first step. Other arms write the current token, the one
    before, an earlier one or none, or nothing at all, with as many parameters, on the same text in
    the same order. Networks of several depths are measured on the way and at the end: the loss on
    held-out text, where a pair of tokens comes again and elsewhere, on second copies of random
    tokens, and what becomes of it when the write is taken away or falsified. Intervals resample
    documents and seeds.

    `trained_models(out)` gives the networks as bridges, with their patches.

    **Arguments:**

    - `preset`: "quick" or "full"; not read where `settings` are given.
    - `settings`: what to train, in place of a preset.
    - `out`: directory of the run. A run that was stopped goes on there, from the last evaluation of
        the training that it was at, and ends in the same numbers. Without it nothing is kept but
        the result.
    - `executor`: any `concurrent.futures.Executor`, which runs the trainings; by default this
        process does.
    - `progress`: show a bar with the time left.

    Raises `RunDirectoryError` for a directory that is in use, damaged or of another run, and
    `ValueError` for an unknown preset, or too little text.
    """
    chosen = ScratchSettings.preset(preset) if settings is None else settings
    presets = {name: ScratchSettings.preset(name) for name in get_args(Preset)}
    experiment = Experiment("scratch", chosen, STAGES, analyse, presets)
    return run(experiment, StartingModel(chosen), out=out, executor=executor, progress=progress)
