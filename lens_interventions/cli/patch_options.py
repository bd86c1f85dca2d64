"""The options that describe a patch, shared by the commands that apply one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..intervention.sources import source_names
from .options import load_lens

if TYPE_CHECKING:
    from ..intervention.patch import NextTokenPatch

Layer = Annotated[
    list[int],
    typer.Option("--layer", help="The block whose input is patched; several may be given."),
]
Strength = Annotated[
    float, typer.Option("--strength", help="0 changes nothing, 1 interpolates all the way.")
]
Mode = Annotated[str, typer.Option("--mode", help="interpolate, add or correct.")]
Source = Annotated[
    str,
    typer.Option(
        "--source",
        help="What is written: true (the next token), or a control: "
        f"{', '.join(source_names('control'))}.",
    ),
]
Scale = Annotated[
    str, typer.Option("--scale", help="raw, or norm: as long as the residual it replaces.")
]
Embedding = Annotated[
    str,
    typer.Option(
        "--embedding",
        help="W_E or W_U: which matrix stands for a token; lens: W_U, carried to the layer through "
        "--lens.",
    ),
]
Window = Annotated[
    int | None, typer.Option("--window", help="Patch only so many of the last positions.")
]
Gate = Annotated[
    float | None,
    typer.Option("--gate", help="Patch only tokens that surprised the layer by so many nats."),
]


def patch_from(
    *,
    layer: list[int],
    strength: float,
    mode: str,
    source: str,
    scale: str,
    embedding: str,
    window: int | None,
    gate: float | None,
    lens: Path | None,
    **rest: Any,
) -> "NextTokenPatch":
    """The patch that the options describe; it judges them itself."""
    from ..intervention.patch import NextTokenPatch

    return NextTokenPatch(
        layer=layer[0] if len(layer) == 1 else tuple(layer),
        strength=strength,
        mode=cast(Any, mode),
        source=source,
        scale=cast(Any, scale),
        embedding=cast(Any, embedding),
        window=window,
        gate=gate,
        lens=load_lens(lens),
        **rest,
    )


def describe(patch: "NextTokenPatch | None") -> str:
    """A patch in a few words, what is left at its default unsaid."""
    if patch is None:
        return "no patch"
    words = [f"layer {', '.join(map(str, patch.layers))}", f"{patch.mode} {patch.strength:g}"]
    defaults = {"source": "true", "scale": "raw", "embedding": "W_E", "positions": "all"}
    words += [
        f"{name} {getattr(patch, name)}"
        for name, usual in defaults.items()
        if getattr(patch, name) != usual
    ]
    words += ["fitted lens"] if patch.lens is not None else []
    words += [
        f"{name} {getattr(patch, name):g}"
        for name in ("window", "gate")
        if getattr(patch, name) is not None
    ]
    return ", ".join(words)
