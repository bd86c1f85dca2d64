"""`lens-interventions score`: the loss of a text with and without a patch."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .checks import FIGURES, require_context, require_output
from .options import (
    Context,
    Device,
    Dtype,
    LensName,
    Model,
    Revision,
    Scopes,
    TextFile,
    after_writing,
    load,
    sums_beside,
)
from .patch_options import (
    Embedding,
    FirstPosition,
    Gate,
    GateOn,
    Layer,
    Mode,
    Scale,
    Source,
    Strength,
    Window,
    Write,
    describe,
    patch_from,
    with_reader,
    without,
)
from .writing import write_table_or_figure

if TYPE_CHECKING:
    from ..intervention.losses.result import PatchLoss
    from ..measures.intervals import Interval


def score(
    file: TextFile,
    layer: Layer = None,
    strength: Strength = None,
    write: Write = None,
    mode: Mode = None,
    source: Source = None,
    scale: Scale = None,
    embedding: Embedding = None,
    first_position: FirstPosition = None,
    window: Window = None,
    gate: Gate = None,
    gate_on: GateOn = "lens",
    lens: LensName = None,
    scope: Scopes = None,
    context: Context = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the losses and their differences to this file too: a table (.csv, .json) "
            "or a figure (.html, .png, .svg, .pdf)."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of random sources and of the bootstrap.")
    ] = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
) -> None:
    """Print the loss of a text with and without a patch, with 95% intervals.

    The intervals resample documents, or pieces if there is one document, and never tokens.

    With --out, the same command continues from OUT.partial if you stop it.
    """
    from ..intervention.losses.patch_loss import patch_loss
    from ..intervention.pieces import piece_length
    from ..materials import read_texts
    from ..model.text_pieces import token_pieces
    from ..model.tokens import TextOrTokens

    require_output(out, (*FIGURES, ".csv", ".json"), file)
    documents = read_texts(file, whole=True)
    patch = patch_from(
        model=model,
        write=write,
        layer=layer,
        strength=strength,
        mode=mode,
        source=source,
        scale=scale,
        embedding=embedding,
        first_position=first_position,
        window=window,
        gate=gate,
        gate_on=gate_on,
        lens=lens,
        seed=seed,
    )
    bridge = load(model, device, dtype, revision)
    require_context(bridge, context)
    length = piece_length(bridge, context)
    pieces = token_pieces(bridge, documents, length=length)
    predicting = (piece for piece in pieces if len(piece) > 1)
    first = next(predicting, None)
    if first is None:
        raise ValueError(f"{file} holds no text of two tokens, so there is nothing to predict")
    texts, unit = list[TextOrTokens](documents), "document"
    if len(documents) == 1:
        texts, unit = [first, *predicting], "piece"
    with sums_beside(out) as partial:
        with with_reader(bridge, patch):
            found = patch_loss(
                bridge,
                texts,
                patch,
                scopes=scope or ["all"],
                max_length=length,
                checkpoint=partial,
                progress=True,
            )
        if out is not None:
            # The label of a single patch names its main fields, and other files hold other patches.
            write_table_or_figure(
                out,
                lambda: found.to_dataframe(seed=seed).assign(label=describe(patch)),
                lambda: found.plot(seed=seed),
            )
    with nullcontext() if out is None else after_writing(out):
        _print(found, unit, seed)
    if out is not None:
        typer.echo(f"wrote {out}", err=True)


def _print(found: "PatchLoss", unit: str, seed: int) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from ..drawing.labels import counted
    from ..measures.intervals import mean_interval

    (patch,) = found.patches
    console = Console()
    for place, scope in enumerate(found.scopes):
        counts, clean = found.counts[:, place], found.clean[:, place]
        if not counts.any():
            console.print(f"no prediction is {scope.replace('_', ' ')}", style="dim")
            continue
        patched = found.losses[:, place, 0]
        table = Table("", "nats a token", "95% interval", "perplexity")
        for name, totals in ((without(patch), clean), (describe(patch), patched)):
            interval = mean_interval(totals, counts, rng=np.random.default_rng(seed))
            table.add_row(name, *_cells(interval), f"{np.exp(interval.estimate):.4g}")
        difference = mean_interval(patched - clean, counts, rng=np.random.default_rng(seed))
        table.add_row("difference", *_cells(difference), f"×{np.exp(difference.estimate):.4g}")
        console.print(table)
        n, tokens = difference.n, int(counts.sum())
        which = "" if scope == "all" else f" ({scope.replace('_', ' ')})"
        said = f"{counted(tokens, 'token')}{which} predicted in {counted(n, unit)}. "
        more = (
            f"The intervals resample the {unit}s." if n > 1 else f"An interval needs more {unit}s."
        )
        console.print(said + more, style="dim")


def _cells(interval: "Interval") -> tuple[str, str]:
    if interval.method == "none":
        return f"{interval.estimate:.4f}", "needs more text"
    return f"{interval.estimate:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
