"""The options that describe a patch, shared by the commands that apply one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..intervention.names import name_of
from ..intervention.sources import control_names, source_names
from .checks import finite, one_of, require_blocks, usage
from .options import load_lens

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from ..intervention.adapted_reader import AdaptedReader
    from ..intervention.patch import NextTokenPatch

MODES = ("interpolate", "add", "correct")
SCALES = ("raw", "norm", "deviation")
EMBEDDINGS = ("W_E", "W_E_centred", "W_U", "lens")
GATES = ("lens", "output")
SCALE_HELP = (
    "raw; norm: as long as the residual that is written to; or deviation: as long as its distance "
    "from the layer's mean."
)

NO_LENS = "--embedding lens needs --lens, a file from fit-lens"

FIRST_POSITION = 1
_DEFAULTS: dict[str, Any] = {
    "mode": "interpolate",
    "source": "true",
    "scale": "raw",
    "embedding": "W_E",
    "first_position": FIRST_POSITION,
}
"""The values of options that are not given; a learned write has its own."""

Layer = Annotated[
    list[int] | None,
    typer.Option(
        "--layer",
        help="The block whose input is patched. May be given several times. By default the layers "
        "that --write was trained for.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        callback=finite,
        help="0 changes nothing. In mode interpolate, 1 replaces the residual. With --write, 1 "
        "writes what was learned, and is the default.",
    ),
]
Write = Annotated[
    Path | None,
    typer.Option(
        "--write",
        help="Write what train-patch has learned, from its .safetensors file. If a reader was "
        "trained with it, the reader is on, also without the patch.",
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        callback=one_of(MODES),
        show_default=str(_DEFAULTS["mode"]),
        help=f"How to write: {', '.join(MODES)}.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        callback=one_of(source_names()),
        show_default=str(_DEFAULTS["source"]),
        help=f"What to write: true (the next token), or a control: {', '.join(control_names())}.",
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--scale",
        callback=one_of(SCALES),
        show_default=str(_DEFAULTS["scale"]),
        help=SCALE_HELP,
    ),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        "--embedding",
        callback=one_of(EMBEDDINGS),
        show_default=str(_DEFAULTS["embedding"]),
        help="The vector of a token: W_E; W_E_centred, less the mean over the vocabulary; W_U; or "
        "lens, which carries W_U to the layer through --lens.",
    ),
]
FirstPosition = Annotated[
    int | None,
    typer.Option(
        "--first-position",
        min=0,
        show_default=str(_DEFAULTS["first_position"]),
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
    write: Path | None,
    layer: list[int] | None,
    strength: float | None,
    lens: str | None,
    **fields: Any,
) -> "NextTokenPatch":
    """The patch that the options describe; options that make no patch are wrong usage.

    `fields` are other fields of the patch; those that a learned write fixes are None if their
    option was not given.
    """
    fixed = {name: fields.pop(name) for name in _DEFAULTS}
    if write is None and (not layer or strength is None):
        raise typer.BadParameter("give --layer and --strength, or --write FILE from train-patch")
    require_blocks(model, layer or [])
    if fields.get("gate_on") == "output" and fields.get("gate") is None:
        raise typer.BadParameter("--gate-on output needs --gate, the surprise from which to patch")
    if write is None and fixed["embedding"] == "lens" and lens is None:
        raise typer.BadParameter(NO_LENS)
    from ..intervention.learned_write import LearnedWrite
    from ..intervention.patch import NextTokenPatch

    if layer:
        fields["layer"] = layer[0] if len(layer) == 1 else tuple(layer)
    if strength is not None:
        fields["strength"] = strength
    fields["lens"] = load_lens(lens)
    learned = None if write is None else LearnedWrite.load(write)
    with usage():
        if learned is None:
            own = {name: _DEFAULTS[name] if fixed[name] is None else fixed[name] for name in fixed}
            patch = NextTokenPatch(**own, **fields)
        elif given := [name for name, value in fixed.items() if value is not None]:
            option = "--" + given[0].replace("_", "-")
            raise ValueError(f"{write} was trained with a {option} of its own: leave out {option}")
        else:
            patch = learned.patch(**fields)
        require_lens_is_read([patch])
    return patch


def with_reader(
    bridge: "TransformerBridge", patch: "NextTokenPatch"
) -> AbstractContextManager[object]:
    """With the reader on that was trained together with the patch's write, if there is one."""
    reader = _reader(patch)
    return nullcontext() if reader is None else reader.on(bridge)


def require_lens_is_read(patches: Sequence["NextTokenPatch"]) -> None:
    """Raise `ValueError` if the patches have a lens that none of them reads."""
    if patches[0].lens is not None and not any(patch.uses_lens for patch in patches):
        raise ValueError(
            "--lens has no effect, because nothing here reads a lens: leave it out, or give "
            "--embedding lens, --gate, --mode correct or --source guess"
        )


def without(patch: "NextTokenPatch") -> str:
    """What remains without the patch, in a few words."""
    return "no patch" if _reader(patch) is None else "the reader alone"


def describe(patch: "NextTokenPatch") -> str:
    """A patch in a few words, without options at their defaults."""
    words = [f"layer {', '.join(map(str, patch.layers))}"]
    learned = not isinstance(patch.mode, str)
    # A learned write has its own scale, embedding and first position.
    told = ("source",) if learned else ("source", "scale", "embedding", "first_position")
    defaults = {name: _DEFAULTS[name] for name in told} | {"positions": "all", "gate_on": "lens"}
    strength = "" if learned and patch.strength == 1 else f" {patch.strength:g}"
    words.append(name_of(patch.mode) + strength)
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


def _reader(patch: "NextTokenPatch") -> "AdaptedReader | None":
    from ..intervention.learned_write import LearnedWrite

    return patch.mode.reader if isinstance(patch.mode, LearnedWrite) else None
