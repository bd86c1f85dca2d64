"""Does it help to learn what to do with the true next token?"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model, ModelSource
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .evaluation import forget_residuals
from .settings import LearnedSettings as LearnedSettings
from .settings import Preset as Preset
from .stages import stages_of
from .writes import Training as Training
from .writes import trained_writes as trained_writes


def learned(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: LearnedSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Writes trained with the true next token and with controls, and what each is good for.

    A write `M e + b` into one layer is trained on one corpus, with everything else frozen: once
    with the embedding of the true next token, and once each with the current token, the layer's own
    guess, a shuffled and a random token and no token at all, for as many steps, on the same text in
    the same order, with several seeds. All are measured on text of other kinds, on documents of the
    same kind, on random tokens said twice and on words that come again. One half of the material
    chooses the best control; the other half reports. A verdict is about the true source minus the
    best control, paired over sequences and seeds. Then the true source's writes are read: what the
    map is like, which attention it changes, and what it is worth at the tokens it should serve.

    `trained_writes(out)` gives the writes.

    **Arguments:**

    - `model`, `out`, `executor`, `progress`: as in `run`.
    - `preset`: "quick" or "full", unless `settings` are given.

    Raises what `run` raises, `ValueError` for an unknown preset, layers or ranks that the model has
    not, or settings that leave a half of the material without sequences or the corpus without text,
    and `NotImplementedError` for a model
    that the two streams do not fit.
    """
    cfg = ModelSource(model).bridge().cfg
    n_layers, d_model = int(cfg.n_layers), int(cfg.d_model)
    if settings is None:
        settings = LearnedSettings.preset(preset, n_layers, d_model)
    settings.require_fit(n_layers, d_model)
    try:
        return run(
            Experiment("learned", settings, stages_of(settings), analyse),
            model,
            out=out,
            executor=executor,
            progress=progress,
        )
    finally:
        forget_residuals()
