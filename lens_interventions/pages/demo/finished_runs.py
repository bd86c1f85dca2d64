"""Finished runs of the experiments on the page's model: their verdicts, and the commands."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from transformer_lens.model_bridge import TransformerBridge

from ...experiments import Result
from ...experiments.engine.json_values import to_values
from ...experiments.engine.presets import ModelSize, Preset
from ...experiments.plans import PLANS
from ...model.embedded import NAME
from ...model.fingerprint import weights_sha256
from ..runs import find_runs, run_titles
from ..verdict_card import VerdictCard, verdict_card

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class FinishedRun:
    """A run as the page shows it.

    Attributes:
        title: the name of the experiment, and of the directory if it has another name.
        command: the command that makes the same run; None if its settings are not those of a
            preset, or its model has no name to load it by.
        cards: a card for each verdict.
        figure: the figure of its first verdict, if it has one.
    """

    title: str
    command: str | None
    cards: tuple[VerdictCard, ...]
    figure: "go.Figure | None"

    @property
    def outcomes(self) -> str:
        """How many verdicts of each kind the run has, such as "2 “helps”, 8 “hurts”"."""
        counts = Counter(card.outcome for card in self.cards)
        return ", ".join(f"{count} “{outcome}”" for outcome, count in sorted(counts.items()))


def finished_runs(directory: Path, bridge: TransformerBridge) -> list[FinishedRun]:
    """The finished runs below a directory.

    Raises `FileNotFoundError` if the directory does not exist, and `ValueError` if it holds no
    finished run or a run of another model.
    """
    results = find_runs([directory]).results
    here = weights_sha256(bridge)
    for path, result in results.items():
        model = result.header["model"]
        if model["weights_sha256"] != here:
            raise ValueError(
                f"{path} was measured on {model['name']} with weights "
                f"{model['weights_sha256'][:12]}, but the page is about {bridge.cfg.model_name} "
                f"with weights {here[:12]}: give the model of the runs (in their dtype, and as "
                "their transformer_lens names its weights), or leave the runs out"
            )
    titles = run_titles(results)
    return [
        FinishedRun(
            title=titles[path],
            command=_command(result),
            cards=tuple(map(verdict_card, result.verdicts)),
            figure=_first_figure(result),
        )
        for path, result in results.items()
    ]


def _first_figure(result: Result) -> "go.Figure | None":
    return next((result.figures().get(finding.figure) for finding in result.verdicts), None)


def _command(result: Result) -> str | None:
    name, model = result.experiment, result.header["model"]
    of_model, plan = _model_options(model), PLANS.get(name)
    if of_model is None or plan is None:
        return None
    size = ModelSize(model["n_layers"], model["d_model"])
    for preset in get_args(Preset):
        if _agree(to_values(plan.preset(preset, size)), result.settings):
            options = f"--preset {preset} {of_model}--out runs/{name}"
            return f"lens-interventions experiment {name} {options}"
    return None


def _model_options(model: Mapping[str, Any]) -> str | None:
    """The options that load a model again, or None for one that its name does not load.

    Only a hub name with an owner is sure to: a directory or file is known by its last part, which
    looks like a hub name without one. No option turns compatibility mode on.
    """
    if model.get("compatibility_mode"):
        return None
    named, dtype = model["name"] != NAME, model["dtype"]
    if named and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", model["name"]):
        return None
    of_name = f"--model {model['name']} " if named else ""
    return of_name + ("" if dtype == "float32" else f"--dtype {dtype} ")


def _agree(here: Any, there: Any) -> bool:
    """Whether two settings agree in the fields that both have.

    A run that another version made may have settings that no longer exist, or lack new ones.
    """
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return all(_agree(here[name], there[name]) for name in here.keys() & there.keys())
    return bool(here == there)
