"""What is held of Markdown: its code blocks, the commands that it shows, its pictures."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from typer.testing import CliRunner

from lens_interventions.cli import app

ROOT = Path(__file__).parents[2]


def blocks(text: str, language: str) -> list[str]:
    """Code blocks, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(texts: Iterable[str]) -> list[str]:
    """Every command line that is shown, once."""
    shown = "".join(block for text in texts for block in blocks(text, "sh"))
    return sorted(set(shown.splitlines()) - {""})


def assert_command_exists(line: str) -> None:
    """A target of the Makefile, or a command of ours with these options."""
    command, *rest = shlex.split(line, comments=True)
    if command == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    assert command == "lens-interventions"
    subcommand = [part for part in rest[:1] if not part.startswith("-")]
    shown = CliRunner().invoke(app, [*subcommand, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    options = {part for part in rest if part.startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", shown.output))


def assert_pictures_are_there(page: Path) -> None:
    """Those that a file shows, by their paths from it."""
    for path in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
        assert (page.parent / path).stat().st_size > 10_000
