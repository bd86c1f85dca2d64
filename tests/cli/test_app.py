"""The command line as a whole: help, the version, and what starting it loads."""

import subprocess
import sys

import typer
from typer.testing import CliRunner

from lens_interventions import cli


def test_help_of_every_command():
    commands = typer.main.get_command(cli.app).commands
    assert {"lens", "generate", "experiment", "report"} <= set(commands)
    for name in commands:
        result = CliRunner().invoke(cli.app, [name, "--help"])
        assert result.exit_code == 0
        assert f" {name} [OPTIONS]" in result.output


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "lens_interventions", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip()


def test_help_loads_neither_torch_nor_plotly():
    code = """
import sys
from lens_interventions.cli import main
sys.argv = ["lens-interventions", "lens", "--help"]
try:
    main()
except SystemExit:
    print({"torch", "transformer_lens", "plotly", "pandas"} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--layers" in done.stdout
    assert done.stderr.strip() == "set()"
