"""`lens-interventions score`: the loss of a text with and without a patch."""

from typing import TYPE_CHECKING, Annotated

import typer

from .checks import require_context
from .options import (
    Context,
    Device,
    Dtype,
    LensName,
    Model,
    Revision,
    TextFile,
    load,
    shows_progress,
)
from .patch_options import (
    FIRST_POSITION,
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
    describe,
    patch_from,
)

if TYPE_CHECKING:
    from ..intervention.losses.result import PatchLoss
    from ..measures.intervals import Interval


def score(
    file: TextFile,
    layer: Layer,
    strength: Strength,
    mode: Mode = "interpolate",
    source: Source = "true",
    scale: Scale = "raw",
    embedding: Embedding = "W_E",
    first_position: FirstPosition = FIRST_POSITION,
    window: Window = None,
    gate: Gate = None,
    gate_on: GateOn = "lens",
    lens: LensName = None,
    context: Context = None,
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
    """
    from ..intervention.losses.patch_loss import patch_loss
    from ..intervention.pieces import piece_length
    from ..materials import read_texts
    from ..model.text_pieces import token_pieces
    from ..model.tokens import TextOrTokens

    documents = read_texts(file, whole=True)
    patch = patch_from(
        model=model,
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
    found = patch_loss(bridge, texts, patch, max_length=length, progress=shows_progress())
    _print(found, unit, seed)


def _print(found: "PatchLoss", unit: str, seed: int) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from ..drawing.labels import counted
    from ..measures.intervals import mean_interval

    counts, without, patched = found.counts[:, 0], found.clean[:, 0], found.losses[:, 0, 0]
    table = Table("", "nats a token", "95% interval", "perplexity")
    for name, totals in (("no patch", without), (describe(found.patches[0]), patched)):
        interval = mean_interval(totals, counts, rng=np.random.default_rng(seed))
        table.add_row(name, *_cells(interval), f"{np.exp(interval.estimate):.4g}")
    difference = mean_interval(patched - without, counts, rng=np.random.default_rng(seed))
    table.add_row("difference", *_cells(difference), f"×{np.exp(difference.estimate):.4g}")
    console = Console()
    console.print(table)
    n, tokens = difference.n, int(counts.sum())
    said = f"{counted(tokens, 'token')} predicted in {counted(n, unit)}. "
    said += f"The intervals resample the {unit}s." if n > 1 else f"An interval needs more {unit}s."
    console.print(said, style="dim")


def _cells(interval: "Interval") -> tuple[str, str]:
    if interval.method == "none":
        return f"{interval.estimate:.4f}", "needs more text"
    return f"{interval.estimate:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
