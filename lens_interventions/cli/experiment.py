"""`lens-interventions experiment`: run an experiment, or continue one that was stopped."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .checks import usage
from .options import Device, Dtype, Model, Revision

if TYPE_CHECKING:
    from ..experiments import CopyingSettings, Result


Name = StrEnum(
    "Name",
    "copying increment last_word learned likeliest loops preservation reader recall scratch slopes "
    "unlikely upbringing",
)
"""The experiments."""

OWN_MODELS = (Name.scratch, Name.upbringing)
"""Those that train models of their own."""

PresetName = StrEnum("PresetName", "quick full")
"""How much to measure."""


def experiment(
    name: Annotated[
        Name,
        # Typer would list the names in a column, and break one of them into two lines.
        typer.Argument(
            metavar="NAME", show_choices=False, help=f"The experiment: {', '.join(Name)}."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The directory of the run. If it holds an unfinished run, that run continues."
        ),
    ],
    preset: Annotated[
        PresetName,
        typer.Option(
            help="How much to measure: quick for a look, in minutes; full to report, in up to "
            "several hours."
        ),
    ] = PresetName.quick,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="For copying only: text to read instead of the preset's natural text. A "
            "plain-text file with blank lines between documents, a .jsonl file, or "
            "dataset:NAME:COLUMN. May be given several times. The question on later repeats of "
            "surprising tokens still reads docstrings."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many processes share the work.")] = 1,
) -> None:
    """Run an experiment: copying asks whether seeing the true next token helps a model to copy.

    If you stop it, the same command continues from there, and ends with the same numbers.
    """
    if text and name is not Name.copying:
        raise typer.BadParameter(f"--text belongs to copying; {name.value} reads its own texts")
    if name in OWN_MODELS and (model or device or revision or dtype != "float32"):
        raise typer.BadParameter(
            f"{name.value} trains models of its own, on the CPU and in float32: leave out --model, "
            "--revision, --device and --dtype"
        )

    from .. import experiments
    from ..experiments.engine.model_source import NamedModel
    from ..experiments.engine.run_directory import require_run_directory
    from ..materials.corpora import require_source

    # Loading a model takes a while, so checks that need no model come first.
    require_run_directory(out)
    with usage():
        for source in text or ():
            require_source(source)
    loaded = NamedModel(model, device, dtype, revision)
    options: dict[str, Any] = {} if name in OWN_MODELS else {"model": loaded}
    measure: Callable[..., Result] = getattr(experiments, name.value)
    typer.echo(f"{name.value}: loading the model and its texts ...", err=True)
    if text:
        options["settings"] = _copying_settings(loaded, preset.value, tuple(text))
    with ExitStack() as stack:
        result = measure(
            preset=preset.value,
            out=out,
            executor=None if workers == 1 else stack.enter_context(_processes(workers)),
            progress=True,
            **options,
        )
    for finding in result.verdicts:
        typer.echo(f"{finding}\n  {finding.method}")
    typer.echo(f"wrote {out}", err=True)


def _copying_settings(source: Any, preset: Any, texts: tuple[str, ...]) -> "CopyingSettings":
    from ..experiments import CopyingSettings
    from ..experiments.engine.model_source import ModelSource

    n_layers = int(ModelSource(source).bridge().cfg.n_layers)
    return replace(CopyingSettings.preset(preset, n_layers), texts=texts)


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """A pool of new processes that share the cores, and end at once if the block fails."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(max((os.cpu_count() or 1) // workers, 1),),
    )
    with pool:
        try:
            yield pool
        except BaseException:
            # Their units would run for up to an hour, and then be discarded.
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _begin_worker(threads: int) -> None:
    import torch

    # Ctrl-C reaches all processes of a terminal; the process that started these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    # A pool's workers notice a dead parent only at the end of their unit, which may take an hour.
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
