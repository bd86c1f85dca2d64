"""The `lens-interventions` command.

One module for each command, which imports what it needs when it runs: `--help` loads neither torch
nor plotly. A new command is a function with Typer's annotations and a line in `app` below.
"""

import sys

import typer

from .demo import demo
from .experiment import experiment
from .fit_lens import fit_lens
from .generate import generate
from .lens import lens
from .report import report
from .score import score
from .slopes import slopes
from .train_patch import train_patch

# What the library raises, with a message for the user, when input or surroundings do not allow the
# request. RuntimeError includes NotImplementedError.
USER_ERRORS = (ValueError, TypeError, RuntimeError, OSError)

app = typer.Typer(
    help="Read what each layer of a language model believes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> bool:
    if wanted:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Read what each layer of a language model believes."""


app.command()(lens)
app.command()(demo)
app.command()(fit_lens)
app.command()(experiment)
app.command()(report)
app.command()(generate)
app.command()(score)
app.command()(slopes)
app.command()(train_patch)


def main() -> None:
    """Run the command; on a user's mistake print one line and leave with status 1 (2: usage)."""
    try:
        app()
    except USER_ERRORS as error:
        _print_error(error)
        sys.exit(1)


def _print_error(error: Exception) -> None:
    from rich.console import Console
    from rich.text import Text

    line = " ".join(str(error).split()) or type(error).__name__
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error: ", "bold red"), line))
