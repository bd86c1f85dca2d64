"""The options that describe a patch, shared by the commands that apply one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..intervention.sources import control_names, source_names
from .checks import finite, one_of, require_blocks, usage
from .options import load_lens

if TYPE_CHECKING:
    from ..intervention.patch import NextTokenPatch

MODES = ("interpolate", "add", "correct")
SCALES = ("raw", "norm", "deviation")
EMBEDDINGS = ("W_E", "W_U", "lens")
GATES = ("lens", "output")
FIRST_POSITION = 1

Layer = Annotated[
    list[int],
    typer.Option("--layer", help="The block whose input is patched. May be given several times."),
]
Strength = Annotated[
    float,
    typer.Option(
        "--strength", callback=finite, help="0 changes nothing; 1 interpolates all the way."
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode", callback=one_of(MODES), help="How to write: interpolate, add or correct."
    ),
]
Source = Annotated[
    str,
    typer.Option(
        "--source",
        callback=one_of(source_names()),
        help=f"What to write: true (the next token), or a control: {', '.join(control_names())}.",
    ),
]
Scale = Annotated[
    str,
    typer.Option(
        "--scale",
        callback=one_of(SCALES),
        help="raw; norm: as long as the residual that it replaces; or deviation: as long as that "
        "residual's distance from the layer's mean.",
    ),
]
Embedding = Annotated[
    str,
    typer.Option(
        "--embedding",
        callback=one_of(EMBEDDINGS),
        help="The vector of a token: W_E, W_U, or lens, which carries W_U to the layer through "
        "--lens.",
    ),
]
FirstPosition = Annotated[
    int,
    typer.Option(
        "--first-position",
        min=0,
        help="Leave positions before this one as they are. Models park attention in the first "
        "token.",
    ),
]
Window = Annotated[
    int | None, typer.Option("--window", min=1, help="Patch only this many of the last positions.")
]
Gate = Annotated[
    float | None,
    typer.Option(
        "--gate",
        callback=finite,
        help="Patch only tokens that were surprising by this many nats or more.",
    ),
]
GateOn = Annotated[
    str,
    typer.Option(
        "--gate-on",
        callback=one_of(GATES),
        help="Surprising to lens, the lens at the layer, or to output, the model without a patch.",
    ),
]


def patch_from(
    *,
    model: str | None,
    layer: list[int],
    strength: float,
    mode: str,
    source: str,
    scale: str,
    embedding: str,
    first_position: int,
    window: int | None,
    gate: float | None,
    gate_on: str,
    lens: str | None,
    **rest: Any,
) -> "NextTokenPatch":
    """The patch that the options describe; options that make no patch are wrong usage."""
    require_blocks(model, layer)
    from ..intervention.patch import NextTokenPatch

    fitted = load_lens(lens)
    with usage():
        patch = NextTokenPatch(
            layer=layer[0] if len(layer) == 1 else tuple(layer),
            strength=strength,
            mode=cast(Any, mode),
            source=source,
            scale=cast(Any, scale),
            embedding=cast(Any, embedding),
            first_position=first_position,
            window=window,
            gate=gate,
            gate_on=cast(Any, gate_on),
            lens=fitted,
            **rest,
        )
        require_lens_is_read([patch])
    return patch


def require_lens_is_read(patches: Sequence["NextTokenPatch"]) -> None:
    """Raise `ValueError` if the patches have a lens that none of them reads."""
    if patches[0].lens is not None and not any(patch.uses_lens for patch in patches):
        raise ValueError(
            "--lens has no effect, because nothing here reads a lens: leave it out, or give "
            "--embedding lens, --gate, --mode correct or --source guess"
        )


def describe(patch: "NextTokenPatch | None") -> str:
    """A patch in a few words, without options at their defaults."""
    if patch is None:
        return "no patch"
    words = [f"layer {', '.join(map(str, patch.layers))}", f"{patch.mode} {patch.strength:g}"]
    defaults = {
        "source": "true",
        "scale": "raw",
        "embedding": "W_E",
        "positions": "all",
        "first_position": FIRST_POSITION,
        "gate_on": "lens",
    }
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
