"""`lens-interventions score`: the loss of a text with and without a patch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Dtype, LensName, Model, Revision, load, shows_progress
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
    import numpy as np
    from transformer_lens.model_bridge import TransformerBridge

    from ..intervention.patch import NextTokenPatch
    from ..measures.intervals import Interval

_CONTEXT = 256  # tokens of a piece
_ROWS = 8  # windows that are scored at a time


def score(
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            help="A text, or a .jsonl file with a document in the field 'text' of each line.",
        ),
    ],
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
    context: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cut documents into pieces of this many tokens, and score each alone. By default "
            "256, or the model's context if that is shorter.",
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
    """
    from ..materials import read_texts

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
    pieces, document = _pieces(bridge, documents, context)
    if not pieces:
        raise ValueError(f"{file} holds no text of two tokens, so there is nothing to predict")
    losses, counts = _losses(bridge, pieces, patch)
    if len(documents) > 1:
        import numpy as np

        sums = np.zeros((len(documents), 3))
        np.add.at(sums, document, np.column_stack([losses.T, counts]))
        sums = sums[sums[:, 2] > 0]
        losses, counts = sums[:, :2].T, sums[:, 2]
    _print(patch, losses, counts, "document" if len(documents) > 1 else "piece", seed)


def _pieces(
    bridge: "TransformerBridge", documents: list[str], context: int | None
) -> tuple[list[list[int]], list[int]]:
    """The token ids of each piece, as `cut` makes them, and the number of its document."""
    from ..model.text_pieces import pieces_of_each

    limit = int(bridge.cfg.n_ctx)
    if context is None:
        context = min(_CONTEXT, limit)
    if context > limit:
        raise typer.BadParameter(f"--context must be from 2 to the model's {limit}, got {context}")
    pieces, places = [], []
    for place, found in enumerate(pieces_of_each(bridge, documents, length=context)):
        for piece in found:
            if len(piece) > 1:
                pieces.append(piece.tolist())
                places.append(place)
    return pieces, places


def _losses(
    bridge: "TransformerBridge", pieces: list[list[int]], patch: "NextTokenPatch"
) -> "tuple[np.ndarray, np.ndarray]":
    """Nats of each piece without and with the patch, `[2, piece]`, and its number of tokens."""
    import torch
    from tqdm.auto import tqdm

    from ..intervention.teacher_forcing.log_probs import teacher_forced_log_probs

    sums, counts = [], []
    for first in tqdm(range(0, len(pieces), _ROWS), disable=not shows_progress(), unit="batch"):
        some = pieces[first : first + _ROWS]
        log_probs = teacher_forced_log_probs(
            bridge,
            some,
            [None, patch],
            text_seeds=torch.arange(first, first + len(some)),
        )
        sums.append(-log_probs.cpu().double().nansum(-1))
        counts.append((~log_probs[0].isnan()).sum(-1).cpu())
    return torch.cat(sums, dim=1).numpy(), torch.cat(counts).numpy()


def _print(
    patch: "NextTokenPatch", losses: "np.ndarray", counts: "np.ndarray", unit: str, seed: int
) -> None:

    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from ..drawing.labels import counted
    from ..measures.intervals import mean_interval

    without, patched = losses
    table = Table("", "nats a token", "95% interval", "perplexity")
    for name, totals in (("no patch", without), (describe(patch), patched)):
        interval = mean_interval(totals, counts, rng=np.random.default_rng(seed))
        table.add_row(name, *_cells(interval), f"{np.exp(interval.estimate):.4g}")
    difference = mean_interval(patched - without, counts, rng=np.random.default_rng(seed))
    table.add_row("difference", *_cells(difference), f"×{np.exp(difference.estimate):.4g}")
    console = Console()
    console.print(table)
    n, tokens = len(counts), int(counts.sum())
    said = f"{counted(tokens, 'token')} predicted in {counted(n, unit)}. "
    said += f"The intervals resample the {unit}s." if n > 1 else f"An interval needs more {unit}s."
    console.print(said, style="dim")


def _cells(interval: "Interval") -> tuple[str, str]:
    if interval.method == "none":
        return f"{interval.estimate:.4f}", "needs more text"
    return f"{interval.estimate:.4f}", f"{interval.low:.4f} to {interval.high:.4f}"
