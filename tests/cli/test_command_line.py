"""What all commands share: the order of the help, and how a wrong value is named."""

import inspect
import re

import pytest

from lens_interventions import cli
from tests.support.pages import ROOT

PATCH = ("generate", "x", "--layer", 1, "--strength")


def test_the_help_lists_the_commands_as_the_docs_do(command):
    page = (ROOT / "docs" / "api" / "command-line.md").read_text()
    documented = re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.MULTILINE)
    listed = re.findall(r"^│ ([a-z][a-z-]*) ", command("--help")[1], flags=re.MULTILINE)
    assert listed == documented


@pytest.mark.parametrize("one", cli.app.registered_commands, ids=lambda one: one.callback.__name__)
def test_no_sentence_of_a_help_is_broken(one):
    """The help keeps every newline of a docstring but in its first paragraph."""
    for paragraph in inspect.getdoc(one.callback).split("\n\n")[1:]:
        assert "\n" not in paragraph


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((*PATCH, "x"), "'x'"),
        ((*PATCH, 0.1, "--max-new-tokens", 0), "0"),
        ((*PATCH, 0.1, "--mode", "nope"), "'nope'"),
        (("experiment", "nope", "--out", "run"), "'nope'"),
        (("score", "--file", "a", "--layer", "q", "--strength", 1), "'q'"),
    ],
)
def test_a_wrong_value_is_named_once_and_in_plain_words(command, arguments, value):
    status, _, err = command(*arguments)
    assert status == 2
    assert err.count(value) == 1
    assert "Value error" not in err


def test_a_lens_that_nothing_reads_is_refused(command, monkeypatch, tmp_path):
    path = tmp_path / "lens.pt"
    import torch
    from transformer_lens.tools.analysis import JacobianLens

    JacobianLens({0: torch.eye(32)}, n_prompts=1, d_model=32).save(str(path))
    status, _, err = command(*PATCH, 0.1, "--lens", path)
    assert status == 2
    assert "--lens has no effect" in err
