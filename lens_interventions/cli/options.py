"""Options that several commands share, and loading the model that they name."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from ..lens.affine import AffineLens

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A name that TransformerLens boots, a local directory or a GGUF file; by default the "
        "embedded SmolLM2-135M-Instruct.",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, mps; by default CUDA if there is one.")
]
LensFile = Annotated[
    Path | None,
    typer.Option(
        "--lens",
        help="Read through a fitted lens: a file of fit-lens, or a folder of tuned-lens.",
    ),
]


def load(model: str | None, device: str | None) -> "TransformerBridge":
    """The bridge that `--model` and `--device` name, with a word to whoever waits for it."""
    from ..model.load import load_model

    if shows_progress():
        typer.echo(f"Loading {model or 'the embedded model'} ...", err=True)
    return load_model(model, device=device)


def load_lens(path: Path | None) -> "AffineLens | None":
    """The lens that `--lens` names."""
    from ..lens.affine import AffineLens
    from ..lens.tuned_lens import load_tuned_lens

    if path is None:
        return None
    return load_tuned_lens(path) if path.is_dir() else AffineLens.load(path)


def shows_progress() -> bool:
    """Whether somebody is there to see a progress bar."""
    return sys.stderr.isatty()
