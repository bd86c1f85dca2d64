"""`lens-interventions lens`: what each layer would predict, as a table, a figure or numbers."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .checks import FIGURES, require_output, usage
from .garbage import nothing_collected
from .options import (
    Chat,
    Device,
    Dtype,
    LensName,
    Model,
    Revision,
    as_message,
    load,
    load_lens,
)
from .selections import is_whole, parse_layers, parse_positions
from .writing import write_table_or_figure

if TYPE_CHECKING:
    from ..lens.trajectory import Trajectory

_NUMBERS = (".csv", ".json", ".safetensors")


def lens(
    text: Annotated[str | None, typer.Argument(help="The text to read.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Read the text from a plain-text file, not JSON lines; - is standard input."
        ),
    ] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
    stat: Annotated[
        str,
        typer.Option(
            help="The statistic that the colours show: top1, final_rank, kl_final, kl_input, "
            "input_rank, next_rank, next_log_prob, entropy, watched_rank, ..."
        ),
    ] = "top1",
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers to read: a range like 0:30:2, without the output, or a list like "
            "0,5,final."
        ),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(help="Positions to read: a range like -20:, or a list like 0,5,-1."),
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(help='A token to follow, such as " plasma". May be given several times.'),
    ] = None,
    compare_with: Annotated[
        str, typer.Option(help="The point that kl_compare compares with.")
    ] = "final",
    lens: LensName = None,
    commitment: Annotated[
        str | None,
        typer.Option(
            help="Also print, for each token, the first layer from which the final guess stays on "
            "top (top1), among the top 3 (top3) or above half the probability (half)."
        ),
    ] = None,
    chat: Chat = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write a figure (.html, .png, .svg, .pdf) or the numbers (.csv, .json, "
            ".safetensors) instead of printing a table."
        ),
    ] = None,
) -> None:
    """Show what each layer of a model would predict at each token of a text."""
    with usage(), nothing_collected():
        options = _lens_options(stat, layers, positions, watch or [], compare_with)
    read = _text(text, file)
    require_output(out, (*FIGURES, *_NUMBERS), file, None if lens is None else Path(lens))
    with usage(), nothing_collected():
        if out is None or out.suffix.lower() not in _NUMBERS:
            _check_compared(stat, compare_with)
        if commitment is not None:
            _check_commitment(commitment, out)
        _require_points(model, options, commitment)
    options["lens"] = load_lens(lens)
    bridge = load(model, device, dtype, revision)

    from ..lens.logit_lens import logit_lens

    trajectory = logit_lens(
        bridge,
        None if chat else read,
        messages=as_message(read, chat),
        progress=True,
        **options,
    )
    # Layers that the user named are all shown.
    shown: dict[str, Any] = {"every": 1, "include_input": True} if layers else {}
    if out is None:
        _print_table(trajectory, stat, shown)
        if commitment is not None:
            _print_commitment(trajectory, commitment)
    else:
        _write(trajectory, stat, shown, out)
        typer.echo(f"wrote {out}", err=True)


def _text(text: str | None, file: Path | None) -> str:
    from ..materials.readers import JSON_LINES

    if text is not None and file is not None:
        raise typer.BadParameter("got both a text and --file: give only one of them")
    if text is not None:
        read = text
    elif file is None:
        raise typer.BadParameter("there is nothing to read: give a text, or --file")
    elif file.suffix.lower() in JSON_LINES:
        raise typer.BadParameter(
            f"{file.name} holds documents in JSON, and lens reads one text: write the one that you "
            "want to a .txt file, or pipe it into --file -"
        )
    else:
        # Editors end a file with a newline, which is not part of the text.
        read = _content(file).removesuffix("\n")
        if not read:
            raise ValueError(f"{file if str(file) != '-' else 'standard input'} holds no text")
    if not read:
        raise typer.BadParameter("the text is empty")
    return read


def _content(file: Path) -> str:
    if str(file) != "-":
        content = file.read_bytes()
    elif sys.stdin is None:
        raise typer.BadParameter("standard input is closed: pipe a text into it, for --file -")
    else:
        content = sys.stdin.buffer.read()
    try:
        # Line ends become those of Python, as they do where other commands read a file.
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}): convert it first") from error


def _lens_options(
    stat: str, layers: str | None, positions: str | None, watch: list[str], compare_with: str
) -> dict[str, Any]:
    from ..lens.statistics import STATISTICS, drawn

    if stat in STATISTICS and STATISTICS[stat].kind == "agrees":
        raise ValueError(
            f"{stat} is true or false and not drawn: --out FILE.csv or .json has it in a column"
        )
    if stat not in drawn():
        raise ValueError(f"unknown statistic {stat!r}; choose one of {', '.join(drawn())}")
    statistic = drawn()[stat]
    if statistic.target == "watched" and not watch:
        raise ValueError(f'{stat} needs --watch, such as --watch " plasma"')
    return {
        "points": None if layers is None else parse_layers(layers),
        "positions": None if positions is None else parse_positions(positions),
        "watch": watch,
        "compare_with": int(compare_with) if is_whole(compare_with) else compare_with,
        "divergences": statistic.divergences,
    }


def _check_compared(stat: str, compare_with: str) -> None:
    """Raise `ValueError` if what is shown of one statistic has nothing of the comparison."""
    from ..lens.statistics import drawn

    compared = [name for name, each in drawn().items() if each.target == "compare"]
    if compare_with != "final" and stat not in compared:
        raise ValueError(
            f"--compare-with changes nothing of {stat}: choose one of {', '.join(compared)} with "
            f"--stat, or write all statistics with --out to a file in {', '.join(_NUMBERS)}"
        )


def _check_commitment(name: str, out: Path | None) -> None:
    from ..lens.commitment import CRITERIA

    if name not in CRITERIA:
        raise ValueError(f"--commitment must be one of {', '.join(CRITERIA)}; got {name!r}")
    if out is not None:
        raise ValueError("--commitment prints a table: leave out --out")


def _require_points(model: str | None, options: dict[str, Any], commitment: str | None) -> None:
    """Raise `ValueError` for points that the model does not have, if its config says so.

    So do points without the final one, if a commitment to it is asked for.
    """
    from ..model import config, points

    n_layers = config.known_blocks(model)
    if n_layers is None:
        return
    read = points.select_points(n_layers, options["points"])
    if commitment is not None and points.FINAL not in read:
        raise ValueError("--commitment is about the final guess: let --layers end with final")
    points.select_points(n_layers, [options["compare_with"]])


def _print_table(trajectory: "Trajectory", stat: str, shown: dict[str, Any]) -> None:
    """A table of the statistic, and one for each watched token."""
    from rich.console import Console

    from ..lens.statistics import drawn
    from .grid_table import GridTable

    followed = stat if drawn()[stat].target == "watched" else "watched_rank"
    grids = [trajectory.grid(stat, **shown)] if followed != stat else []
    grids += [trajectory.grid(followed, token=token, **shown) for token in trajectory.watched]
    for grid in grids:
        Console().print(GridTable(grid))


def _print_commitment(trajectory: "Trajectory", name: str) -> None:
    from rich.console import Console

    from ..lens.commitment import CRITERIA

    Console().print(trajectory.commitment(**CRITERIA[name]))


def _write(trajectory: "Trajectory", stat: str, shown: dict[str, Any], out: Path) -> None:
    if out.suffix.lower() == ".safetensors":
        trajectory.save(out)
    else:
        write_table_or_figure(out, trajectory.to_dataframe, lambda: trajectory.plot(stat, **shown))
