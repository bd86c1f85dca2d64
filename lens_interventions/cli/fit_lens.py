"""`lens-interventions fit-lens`: fit an affine map for each layer, so that a lens can read it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .checks import FIGURES, require_output
from .options import Device, Dtype, Model, Revision, after_writing, kept_beside, load
from .writing import write_table_or_figure

if TYPE_CHECKING:
    from ..fitting.lens_quality import LensQuality
    from ..model.tokens import TextOrTokens

_TEST_TOKENS = 256
_SAMPLES, _SAMPLE_TOKENS = 256, 128


def fit_lens(
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
    file: Annotated[
        Path | None,
        typer.Option(
            help="The text to fit to, or a .jsonl file with a document in the field 'text' of each "
            "line. By default the model writes its own; if it writes others on another day, a fit "
            "that you stopped does not continue."
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=10,
            help=f"How many texts of 128 tokens the model writes, by default {_SAMPLES}.",
        ),
    ] = None,
    test_file: Annotated[
        Path | None,
        typer.Option(
            help="The text to test the lens on, with blank lines between documents, or .jsonl. By "
            "default prose that comes with the library."
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            help="Write the comparison with the raw lens to this file: .csv, .html, .png, .svg or "
            ".pdf."
        ),
    ] = None,
    refine: Annotated[
        int, typer.Option(min=0, help="Then train this many steps on KL(final ‖ lens).")
    ] = 0,
    window: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="How many tokens to read at a time, by default 512, and 256 while refining.",
        ),
    ] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
) -> None:
    """Fit an affine lens in closed form, and print how well it reads another text.

    If you stop it, the same command continues the fit from there.
    """
    if file is not None and samples is not None:
        raise typer.BadParameter("--samples is for a fit without --file: give only one of them")
    if file is not None and test_file is not None and file.resolve() == test_file.resolve():
        raise typer.BadParameter(
            "--test-file is the file that the lens is fitted to, which says nothing about other "
            "text: name another, or leave it out for the prose that comes with the library"
        )
    if refine and dtype in ("bfloat16", "float16"):
        raise typer.BadParameter(f"--refine needs --dtype float32 or float64, not {dtype}")
    require_output(out, [".safetensors"])
    require_output(quality, (".csv", *FIGURES), file, test_file)

    from ..fitting.affine_fit import fit_affine_lens
    from ..fitting.affine_refinement import refine_affine_lens
    from ..fitting.lens_quality import lens_quality
    from ..intervention.generation.sample_texts import sample_texts
    from ..materials import prose, read_texts

    texts: Sequence[TextOrTokens] | None = None
    if file is not None:
        texts = read_texts(file, whole=True)
    tests = [each.text for each in prose()] if test_file is None else read_texts(test_file)
    bridge = load(model, device, dtype, revision)
    if texts is None:
        length = min(_SAMPLE_TOKENS, int(bridge.cfg.n_ctx))
        texts = list(sample_texts(bridge, samples or _SAMPLES, length=length, progress=True))
    at_a_time: dict[str, Any] = {} if window is None else {"window": window}
    with kept_beside(out) as partial:
        lens = fit_affine_lens(
            bridge,
            texts,
            corpus="the model's own samples" if file is None else file.name,
            checkpoint=partial,
            progress=True,
            **at_a_time,
        )
        if refine:
            lens = refine_affine_lens(bridge, lens, texts, steps=refine, progress=True, **at_a_time)
        lens.save(out)
    typer.echo(f"wrote {out}, fitted to {lens.settings['tokens']:,} tokens", err=True)
    with after_writing(out):
        judged = lens_quality(bridge, lens, tests, max_tokens=_TEST_TOKENS, progress=True)
        if quality is not None:
            write_table_or_figure(quality, judged.to_dataframe, judged.plot)
            typer.echo(f"wrote {quality}", err=True)
        _print(judged, "the library's prose" if test_file is None else test_file.name)


def _print(judged: "LensQuality", read: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = {
        "kl_final": "KL(final ‖ point), nats",
        "agrees_final": "top guess is the output's",
        "next_log_prob": "log-prob of the next token",
    }
    summary = judged.summary()
    table = Table(title=Text(f"Means over the points, on {read}"))
    for heading in ("", *summary["kl_final"]):
        table.add_column(heading, justify="right" if heading else "left")
    for statistic, intervals in summary.items():
        table.add_row(names[statistic], *map(str, intervals.values()))
    Console().print(table)
