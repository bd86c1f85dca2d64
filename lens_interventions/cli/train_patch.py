"""`lens-interventions train-patch`: learn a write, or continue its training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..intervention.sources import source_names
from .checks import FIGURES, finite, one_of, require_blocks, require_output, usage
from .options import (
    Device,
    Dtype,
    Model,
    Revision,
    TextFile,
    after_writing,
    kept_beside,
    load,
)

if TYPE_CHECKING:
    from ..intervention.training.result import TrainedPatch

_ADAPTER_RANK = 8
_CONTROLS = (
    *source_names("control", "bare"),
    *(f"{name} (the bias alone)" for name in source_names("no news")),
)


def train_patch(
    file: TextFile,
    layer: Annotated[
        list[int],
        typer.Option(
            "--layer", help="The block whose input the patch writes to. May be given several times."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rank of the learned matrix. By default 64, or the model's width if that is "
            "smaller.",
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Learn a full matrix instead.")] = False,
    source: Annotated[
        str,
        typer.Option(
            callback=one_of(source_names()),
            help="The token that the write reads: true (the next token), or a control: "
            f"{', '.join(_CONTROLS)}.",
        ),
    ] = "true",
    steps: Annotated[
        int,
        typer.Option(
            min=1,
            help="The most steps of the optimizer. Training stops after five evaluations without "
            "a lower held-out loss.",
        ),
    ] = 500,
    seed: Annotated[
        int, typer.Option(help="The seed of the start, the order of the text, and random sources.")
    ] = 0,
    strength: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            help="Write the embedding itself, scaled to the residual, at this strength, and train "
            "only the reader. Needs --adapt.",
        ),
    ] = None,
    adapt: Annotated[
        str | None,
        typer.Option(
            help="The parts of the blocks above that learn to read the write: attention, or "
            "attention+mlp."
        ),
    ] = None,
    adapter_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=str(_ADAPTER_RANK),
            help="Rank of the updates that --adapt trains.",
        ),
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens in a window of text.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Windows in a step.")] = 8,
    learning_rate: Annotated[
        float, typer.Option(callback=finite, help="Peak learning rate.")
    ] = 0.01,
    bias: Annotated[bool, typer.Option(help="Learn a bias too.")] = True,
    input_gate: Annotated[
        bool, typer.Option("--input-gate", help="Scale the write by a learned gate.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="Write the loss curve to this file: .html, .png, .svg, .pdf or .json."),
    ] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
) -> None:
    """Train what a patch writes into a layer for each known next token, with the model frozen.

    With --adapt, low-rank updates of the blocks above are trained and saved too.

    If you stop it, the same command continues from OUT.partial, and ends with the same numbers.
    """
    from ..materials import read_texts

    require_output(out, [".safetensors"])
    require_output(figure, (*FIGURES, ".json"), file)
    documents = read_texts(file, whole=True)
    require_blocks(model, layer)

    from ..intervention.adapted_reader import Adapt, require_adapt
    from ..intervention.training.loop import DivergenceError
    from ..intervention.training.options import TrainingOptions
    from ..intervention.training.train_patch import train_patch as train

    with usage():
        if strength is not None and adapt is None:
            raise ValueError(f"--strength {strength} leaves nothing to train: give --adapt too")
        if strength is not None and (full or rank or input_gate or not bias):
            raise ValueError(
                "with --strength the write is the embedding itself: leave out --rank, --full, "
                "--no-bias and --input-gate"
            )
        if source in source_names("no news") and (full or rank):
            raise ValueError(f"--source {source} trains a bias alone: leave out --rank and --full")
        if full and rank is not None:
            raise ValueError(f"a --full matrix has no rank: leave out --rank {rank} or --full")
        if adapter_rank is not None and adapt is None:
            raise ValueError("--adapter-rank is the rank of what --adapt trains: give --adapt too")
        if adapt is not None:
            require_adapt(adapt)
        options = TrainingOptions(
            window=window,
            batch_size=batch_size,
            learning_rate=learning_rate,
            bias=bias and strength is None,
            input_gate=input_gate,
            scale="raw" if strength is None else "norm",
        )
    bridge = load(model, device, dtype, revision)
    has_rank = strength is None and not full and source not in source_names("no news")
    with kept_beside(out) as partial:
        try:
            result = train(
                bridge,
                documents,
                layer=layer[0] if len(layer) == 1 else tuple(layer),
                rank=(rank or "default") if has_rank else None,
                source=source,
                steps=steps,
                seed=seed,
                strength=strength,
                adapt=cast(Adapt | None, adapt),
                adapter_rank=adapter_rank,
                options=options,
                checkpoint=partial,
                progress=True,
            )
        except DivergenceError as error:
            partial.unlink(missing_ok=True)  # from there, every training ends as this one did
            if error.best is None:
                raise
            error.best.save(out)
            step = error.best.settings["best_step"]
            raise ValueError(f"{error}; {out} has the best write so far, of step {step}") from error
        result.write.save(out)
        typer.echo(f"wrote {out}", err=True)
        if figure is not None:
            from ..plots import save

            save(result.plot(), figure)
    with after_writing(out):
        _print(result)


def _print(result: "TrainedPatch") -> None:
    settings = result.settings
    best = result.held_out.loc[result.held_out["step"] == settings["best_step"]].iloc[0]
    typer.echo(
        f"held-out loss {best['clean_loss']:.4f} nats a token without the patch, "
        f"{best['loss']:.4f} with it ({best['change']:+.4f}), after {settings['best_step']} of "
        f"{settings['steps_made']} steps"
    )
    if settings["source"] == "true":
        typer.echo(
            "A write without news of the next token gains something too: train --source current "
            "and zero to compare."
        )
