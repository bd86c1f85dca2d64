"""Is a rarer, or more surprising, input token better preserved in later layers?"""

from concurrent.futures import Executor
from pathlib import Path

from ..engine.model_source import Model
from ..engine.results import Result
from ..engine.run import Experiment, run
from .analysis import analyse
from .settings import PreservationSettings as PreservationSettings
from .settings import Preset as Preset
from .stages import plan


def preservation(
    model: Model = None,
    preset: Preset = "quick",
    *,
    settings: PreservationSettings | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Result:
    """Rank of the input token by layer, against its rarity and its surprise; and copying.

    Three questions of the post's addendum. Does the rank that later points give the token at
    their own position go with its unigram surprisal, and with its surprisal in context, each with
    the other held fixed? Is that more than how high the lens ranks the token at positions where
    it is not the input? And is a word that is better preserved where it stands first better
    copied where it is due again?

    **Arguments:**

    - `model`, `out`, `executor`, `progress`: as in `run`.
    - `preset`: "quick" or "full", unless `settings` are given.

    Raises what `run` raises, `ValueError` for an unknown preset.
    """
    chosen = settings or PreservationSettings.preset(preset)
    return run(
        Experiment("preservation", chosen, {"reading": plan}, analyse),
        model,
        out=out,
        executor=executor,
        progress=progress,
    )
