"""Options that several commands share, and loading what they name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .checks import one_of
from .garbage import nothing_collected

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.tools.analysis import JacobianLens

    from ..lens.affine import AffineLens

DTYPES = ("float32", "bfloat16", "float16", "float64")
SCOPES = ("all", "copyable", "other", "after_surprise", "repeated_surprise")

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A name that TransformerLens can boot, a local directory, or a GGUF file. By default "
        "the embedded SmolLM2-135M-Instruct.",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda or mps. By default CUDA, if available.")
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        callback=one_of(DTYPES),
        help=f"Precision of the weights and of the computation: {', '.join(DTYPES)}.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        help="A branch, tag or commit of a model on the hub, such as the step1000 of a Pythia.",
    ),
]
TextFile = Annotated[
    Path,
    typer.Option(
        "--file",
        help="A text, or a .jsonl file with a document in the field 'text' of each line.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Cut documents into pieces of this many tokens, each read alone. By default 512, or "
        "the model's context if that is shorter.",
    ),
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        callback=one_of(SCOPES),
        show_default="all",
        help="Predictions to sum over: all, copyable, other, after_surprise or repeated_surprise. "
        "May be given several times.",
    ),
]
LensName = Annotated[
    str | None,
    typer.Option(
        "--lens",
        metavar="NAME",
        help="Read through a fitted lens: a file from fit-lens, a folder from tuned-lens, a .pt "
        "file of TransformerLens's Jacobian lens, or the name of a published one, such as "
        "gemma-3-270m.",
    ),
]


Chat = Annotated[
    bool,
    typer.Option(
        "--chat",
        help="Lay out the text by the model's chat template, as a message of the user.",
    ),
]


def load(
    model: str | None, device: str | None, dtype: str, revision: str | None
) -> "TransformerBridge":
    """Load the model that the options name, and print that this takes seconds."""
    typer.echo(f"Loading {model or 'the embedded model'} ...", err=True)
    with nothing_collected():
        import torch

        from ..model.load import load_model

        return load_model(model, device=device, dtype=getattr(torch, dtype), revision=revision)


def load_lens(name: str | None) -> "AffineLens | JacobianLens | None":
    """Load the lens that `--lens` names."""
    return None if name is None else lens_and_line(name)[0]


def lens_and_line(name: str) -> "tuple[AffineLens | JacobianLens, str]":
    """The lens of a name, and the Python by which a user loads it."""
    from ..lens.affine import AffineLens
    from ..lens.jacobian import published_jacobian_lens
    from ..lens.tuned_lens import load_tuned_lens

    path = Path(name)
    if path.is_dir():
        return load_tuned_lens(path), f"lens = li.load_tuned_lens({name!r})"
    imported = "from transformer_lens.tools.analysis import JacobianLens\n"
    if path.suffix == ".pt":
        return _jacobian_lens(path), f"{imported}lens = JacobianLens.load({name!r})"
    if path.is_file() or path.suffix == ".safetensors":
        return AffineLens.load(path), f"lens = li.AffineLens.load({name!r})"
    # Without the hub this line takes minutes, in which its client tries again.
    line = f"{imported}lens = JacobianLens.from_pretrained({name!r})"
    return published_jacobian_lens(name), line


def _jacobian_lens(path: Path) -> "JacobianLens":
    from pickle import UnpicklingError

    from transformer_lens.tools.analysis import JacobianLens

    try:
        return JacobianLens.load(str(path))
    except OSError:
        raise
    # What torch and TransformerLens raise for a file of another kind.
    except (UnpicklingError, EOFError, LookupError, AttributeError, TypeError, RuntimeError) as bad:
        raise ValueError(
            f"{path} is not a Jacobian lens of TransformerLens ({type(bad).__name__} {bad})"
        ) from bad


def as_message(text: str, chat: bool) -> list[dict[str, str]] | None:
    """With `--chat`, the text as a user's message; otherwise None."""
    return [{"role": "user", "content": text}] if chat else None


@contextmanager
def kept_beside(out: Path) -> Iterator[Path]:
    """The file in which a command keeps what is done, which goes once `out` is written.

    If the user stops the command inside, it says where it will continue.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        yield partial
    except KeyboardInterrupt as stop:
        if partial.exists():
            stop.add_note(f"what was done is kept in {partial}; the same command continues")
        raise
    partial.unlink(missing_ok=True)


@contextmanager
def sums_beside(out: Path | None) -> Iterator[Path | None]:
    """`kept_beside` for the sums of finished texts and their lock; None if there is no `out`."""
    if out is None:
        yield None
        return
    from ..intervention.text_sums import remove_lock

    try:
        with kept_beside(out) as partial:
            yield partial
    finally:
        if not partial.exists():
            remove_lock(partial)


@contextmanager
def after_writing(out: Path) -> Iterator[None]:
    """If the user stops the command inside, say that `out` is written."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"{out} is written")
        raise
