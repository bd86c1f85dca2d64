"""The `lens-interventions` command line, one module for each command.

A new command is a module with one function, whose signature Typer reads, and a line below; options
that commands share go into `options.py` and `patch_options.py`. It may import every package, and
nothing imports it. A command imports what it needs when it runs, so that `--help` loads neither
torch nor plotly.
"""

import sys

import typer

from .demo import demo
from .experiment import experiment
from .explorer import explorer
from .fit_lens import fit_lens
from .generate import generate
from .lens import lens
from .report import report
from .score import score
from .slopes import slopes
from .train_patch import train_patch

# Errors of the library whose message tells the user what to do. RuntimeError includes
# NotImplementedError.
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
app.command("app")(explorer)
app.command()(fit_lens)
app.command()(experiment)
app.command()(report)
app.command()(generate)
app.command()(score)
app.command()(slopes)
app.command()(train_patch)


def main() -> None:
    """Run the command. A user's mistake is one line and status 1, or 2 for wrong usage."""
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
