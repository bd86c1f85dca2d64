"""Running one of the library's experiments, with a preset or with the user's settings."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from transformer_lens.model_bridge import TransformerBridge

from ...model.argument_types import require_instance
from .model_source import Model, ModelSource
from .results import Analysis, Result, Tables
from .run import Experiment, Stage, run

Preset = Literal["quick", "full"]

S = TypeVar("S")


@dataclass(frozen=True)
class ModelSize:
    """What a preset may depend on."""

    n_layers: int
    d_model: int


@dataclass(frozen=True)
class Plan(Generic[S]):
    """An experiment before it has settings.

    Attributes:
        name: its name, such as "copying".
        preset: makes the settings of a preset for a model of this size.
        stages: makes the stages for settings and a model, by name, in order. It raises `ValueError`
            for settings that do not fit the model.
        analyse: makes tables and verdicts from the settings and all rows.
        files: names the files that units read and no setting names, as in `Experiment`; the last
            argument says whether to show progress in making them.
        forget: frees what the units of this process share, which is done after every run. Workers
            of an executor keep it until other units need the room, or they end.
    """

    name: str
    preset: Callable[[Preset, ModelSize], S]
    stages: Callable[[S, TransformerBridge], Mapping[str, Stage]]
    analyse: Callable[[S, Tables], Analysis]
    files: Callable[[S, TransformerBridge, bool], Mapping[str, str]] = lambda *_: {}
    forget: Callable[[], None] = lambda: None

    def run(
        self,
        model: Model,
        preset: Preset,
        settings: S | None,
        *,
        out: str | Path | None,
        executor: Executor | None,
        progress: bool,
    ) -> Result:
        """Run the experiment with `settings`, or with those of the preset if there are none."""
        try:
            bridge = ModelSource(model).bridge()
            size = ModelSize(int(bridge.cfg.n_layers), int(bridge.cfg.d_model))
            chosen = self.preset(preset, size) if settings is None else settings
            presets = {name: self.preset(name, size) for name in get_args(Preset)}
            require_instance("settings", chosen, type(presets["quick"]))
            experiment = Experiment(
                self.name,
                chosen,
                self.stages(chosen, bridge),
                self.analyse,
                presets,
                self.files(chosen, bridge, progress),
            )
            return run(experiment, model, out=out, executor=executor, progress=progress)
        finally:
            self.forget()


def require_preset(name: Any) -> None:
    """Raise `ValueError` for another name than "quick" or "full"."""
    if name not in get_args(Preset):
        raise ValueError(f"preset must be 'quick' or 'full', got {name!r}")
