"""Options that several commands share, and loading the model that they name."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A name that TransformerLens boots or a local directory; by default the embedded "
        "SmolLM2-135M-Instruct.",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, mps; by default CUDA if there is one.")
]


def load(model: str | None, device: str | None) -> "TransformerBridge":
    """The bridge that `--model` and `--device` name, with a word to whoever waits for it."""
    from ..models import load_model

    if shows_progress():
        typer.echo(f"Loading {model or 'the embedded model'} ...", err=True)
    return load_model(model, device=device)


def shows_progress() -> bool:
    """Whether somebody is there to see a progress bar."""
    return sys.stderr.isatty()
