"""A statistic as a table for the terminal: its width, its colours, its numbers."""

import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from lens_interventions.cli.grid_table import GridTable
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.tiny import shared_bridge


def printed(statistic, *, width, **options):
    read = logit_lens(shared_bridge("llama"), "the people say they mean: " * 3)
    console = Console(width=width, force_terminal=True, **options)
    with console.capture() as capture:
        console.print(GridTable(read.grid(statistic)))
    return read, capture.get().splitlines()


@pytest.mark.parametrize("width", [40, 70, 1000])
def test_a_table_fits_the_terminal_and_says_what_it_leaves_out(width):
    read, lines = printed("top1", width=width, color_system=None)
    assert max(map(cell_len, lines)) <= width
    total = read.tokens.shape[1]
    said = " ".join(lines[-3:])
    if width == 1000:
        assert "of" not in said.split("*")[0]
    else:
        columns = (width - len("final ")) // 9
        assert f"the last {columns} of {total} tokens" in said


def test_rows_keep_their_names_where_no_layer_has_a_longer_one():
    read = logit_lens(shared_bridge("llama"), "the people", points=[1, 2])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(GridTable(read.grid("top1")))
    lines = capture.get().splitlines()
    assert {"next", "token", "1", "2"} <= {line.split()[0] for line in lines if line.strip()}


@pytest.mark.parametrize("colours", [{"color_system": None}, {"no_color": True}])
def test_a_table_without_colours_shows_the_numbers(colours):
    """With NO_COLOR rich keeps the colours of the terminal, and draws none."""
    options = {"color_system": "truecolor"} | colours
    read, lines = printed("kl_final", width=1000, **options)
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]  # underlined where it is final
    row = next(line for line in plain if line.lstrip().startswith("2 "))
    values = [float(value) for value in row.split()[1:]]
    assert values == pytest.approx(read.kl_final[2, 0].tolist(), rel=5e-3, abs=5.1e-5)


def test_a_table_with_colours_shows_the_guesses_on_them():
    _, lines = printed("kl_final", width=1000, color_system="truecolor")
    final = next(line for line in lines if "final " in line and "\x1b[" in line and "48;2" in line)
    # KL(final ‖ final) is 0: the brightest colour of the scale, written in black.
    assert "38;2;0;0;0" in final
    assert "48;2;254;202;141" in final
