"""`lens-interventions slopes`: the effect of weak patches at every layer, before any is run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..intervention.sources import source_names
from .checks import FIGURES, one_of, require_blocks, require_context, require_output, usage
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
    load_lens,
    sums_beside,
)
from .patch_options import (
    EMBEDDINGS,
    FIRST_POSITION,
    MODES,
    NO_LENS,
    SCALE_HELP,
    SCALES,
    FirstPosition,
    Gate,
    GateOn,
    Window,
    require_lens_is_read,
)
from .writing import write_table_or_figure

if TYPE_CHECKING:
    from ..intervention.slopes.result import SlopeMap

_TABLES = (".csv", ".json")
_FINAL_GUESS = "final_guess"
_SOURCES = (*source_names(), _FINAL_GUESS)

DRAWN = ("true", "current", "previous", "shuffled", "random", _FINAL_GUESS)
"""The sources that a map has by default."""


def slopes(
    file: TextFile,
    out: Annotated[
        Path,
        typer.Option(help="The figure (.html, .png, .svg, .pdf) or table (.csv, .json) to write."),
    ],
    layer: Annotated[
        list[int] | None,
        typer.Option(
            "--layer",
            show_default="all",
            help="A block whose input is patched. May be given several times.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            callback=one_of(_SOURCES),
            show_default=", ".join(DRAWN),
            help=f"{', '.join(source_names())} or final_guess. May be given several times.",
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            callback=one_of(MODES),
            show_default="add",
            help=f"{', '.join(MODES)}. May be given several times.",
        ),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            callback=one_of(EMBEDDINGS),
            show_default="W_E",
            help="W_E, W_E_centred, W_U or lens (with --lens). May be given several times.",
        ),
    ] = None,
    scope: Scopes = None,
    scale: Annotated[str, typer.Option(callback=one_of(SCALES), help=SCALE_HELP)] = "norm",
    first_position: FirstPosition = None,
    window: Window = None,
    gate: Gate = None,
    gate_on: GateOn = "lens",
    lens: LensName = None,
    context: Context = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random sources.")] = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
) -> None:
    """Show the slope of the loss in the strength of a patch, for every layer and source.

    A figure shows the first mode, embedding and scope; a table shows all.

    If you stop it, the same command continues from OUT.partial.
    """
    from ..materials import read_texts

    if "lens" in (embedding or ()) and lens is None:
        raise typer.BadParameter(NO_LENS)
    require_output(out, (*FIGURES, *_TABLES), file)
    documents = read_texts(file, whole=True)
    require_blocks(model, layer or [])

    from ..intervention.patch import NextTokenPatch
    from ..intervention.slopes.slope_map import slope_map

    fitted = load_lens(lens)
    sources, modes = source or DRAWN, mode or ["add"]
    embeddings = cast(Any, embedding or ["W_E"])
    read: dict[str, Any] = {"gate": gate, "gate_on": gate_on, "lens": fitted}
    with usage():
        require_lens_is_read(
            [
                NextTokenPatch(
                    layer=0,
                    strength=1.0,
                    # It is known from the output, and a patch cannot write it.
                    source="true" if name == _FINAL_GUESS else name,
                    mode=cast(Any, way),
                    embedding=table,
                    **read,
                )
                for name in sources
                for way in modes
                for table in embeddings
            ]
        )
    bridge = load(model, device, dtype, revision)
    require_context(bridge, context)
    with sums_beside(out) as partial:
        found = slope_map(
            bridge,
            documents,
            layers=layer,
            sources=sources,
            modes=modes,
            embeddings=embeddings,
            scopes=scope or ["all"],
            scale=cast(Any, scale),
            first_position=FIRST_POSITION if first_position is None else first_position,
            window=window,
            gate=gate,
            gate_on=cast(Any, gate_on),
            lens=fitted,
            seed=seed,
            max_length=context,
            checkpoint=partial,
            progress=True,
        )
        write_table_or_figure(out, lambda: found.to_dataframe().assign(scale=scale), found.plot)
    with after_writing(out):
        typer.echo(f"wrote {out}", err=True)
        _print(found)


def _print(found: "SlopeMap") -> None:
    """Print the layer where each source lowers the loss most steeply, and the amount of text."""
    import numpy as np

    scope = found.scopes[0].replace("_", " ")
    n_tokens, n_texts = int(found.counts[:, 0].sum()), int((found.counts[:, 0] > 0).sum())
    if n_tokens == 0:
        typer.echo(f"no prediction is {scope}")
        return
    texts = "text" if n_texts == 1 else "texts"
    typer.echo(
        f"{n_tokens} tokens of {n_texts} {texts} predicted ({scope}), at "
        f"{found.nats[:, 0].sum() / n_tokens:.4f} nats each without a patch"
    )
    first = (
        f"mode {found.modes[0]}, embedding {found.embeddings[0]}, scale {found.patches[0].scale}"
    )
    typer.echo(f"the lowest slope of each source ({first}), in nats per unit of strength:")
    for source, slopes in zip(found.sources, found.slopes[0, 0, 0], strict=True):
        steepest = int(np.argmin(slopes))
        typer.echo(
            f"{source.replace('_', ' '):>12} {slopes[steepest]:+.4f} at layer "
            f"{found.layers[steepest]}"
        )
