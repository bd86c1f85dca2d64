"""The `lens-interventions` command line, one module for each command.

A new command is a module with one function, whose signature Typer reads, and a line below. Options
that commands share go into `options.py` and `patch_options.py`, checks before a model is loaded
into `checks.py`, files of results into `writing.py`. It may import every package, and nothing
imports it. A command imports what it needs when it runs, so that `--help` loads neither torch nor
plotly.
"""

import functools
import io
import sys
from collections.abc import Callable
from typing import Any

import typer

from ..model.user_errors import USER_ERRORS
from .demo import demo
from .experiment import experiment
from .explorer import explorer
from .fit_lens import fit_lens
from .garbage import everything_collected_after, exit_without_collection
from .generate import generate
from .lens import lens
from .report import report
from .score import score
from .slopes import slopes
from .train_patch import train_patch

# Wrong usage of any kind. Depending on its version, Typer contains click or needs it, and only this
# subclass has a name in all versions.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_INTERRUPTED = 130  # 128 and the number of the signal, as shells have it

app = typer.Typer(
    help="Read what each layer of a language model believes.",
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


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """If the user stops a command, say in one line what is kept."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt as stop:
            kept = getattr(stop, "__notes__", ["nothing new was kept"])
            _print_line("Stopped", "; ".join(kept))
            raise typer.Exit(_INTERRUPTED) from None

    return run


# In the order of `--help`: reading and patching first, then what is fitted, then experiments.
app.command("app")(_interruptible(everything_collected_after()(explorer)))
for _command in (
    lens,
    generate,
    score,
    slopes,
    fit_lens,
    train_patch,
    experiment,
    report,
    demo,
):
    app.command()(_interruptible(everything_collected_after()(_command)))


def main() -> None:
    """Run the command. A mistake is one line: status 2 for wrong usage, 1 for anything else."""
    exit_without_collection()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Tables have signs that an encoding such as that of Windows may lack.
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    try:
        status = app(arguments or ["--help"], standalone_mode=False)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        help_line = f" (see {context.command_path} --help)" if context else ""
        _print_line("Error", f"{_usage_message(error)}{help_line}")
        sys.exit(2)
    except USER_ERRORS as error:
        _print_line("Error", _message(error))
        sys.exit(1)
    sys.exit(status if arguments else 2)


def _usage_message(error: Exception) -> str:
    said = error.format_message().replace("Value error, ", "", 1)  # type: ignore[attr-defined]
    # Newer Typers read values with pydantic, whose messages do not say what arrived.
    problems: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    value = repr(problems[0]["input"]) if problems else ""
    return said if value in said else f"{said}, got {value}"


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"  # without the number
    return str(error) or type(error).__name__


def _print_line(kind: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble((f"{kind}: ", "bold red"), " ".join(message.split()))
    Console(stderr=True, soft_wrap=True).print(line)
