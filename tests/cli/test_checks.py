"""What commands say before they load a model, and the registries that their options repeat."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig

from lens_interventions.cli import options, patch_options
from lens_interventions.cli.slopes import DRAWN
from lens_interventions.intervention.losses.scopes import SCOPES
from lens_interventions.intervention.modes import MODES
from lens_interventions.intervention.patch_fields import choices
from lens_interventions.intervention.slopes.slope_map import TOKEN_SOURCES
from lens_interventions.model.config import known_blocks
from tests.support.tiny import tiny_model

Run = Callable[..., tuple[int, str, str]]

PATCH = ("--layer", 1, "--strength", 0.1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of three blocks, of which only the config is there."""
    tiny_model("llama").config.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("the people say")
    return tmp_path / "text.txt"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("lens", "a", "--stat", "foo"), 2, "unknown statistic 'foo'"),
        (
            ("lens", "a", "--stat", "agrees_final"),
            2,
            "agrees_final is true or false and not drawn: --out FILE.csv or .json has it",
        ),
        (("lens", "a", "--layers", "99"), 2, "residual point 99 does not exist"),
        (
            ("lens", "a", "--layers", "0:2", "--commitment", "top1"),
            2,
            "let --layers end with final",
        ),
        (("lens", "a", "--positions", "0:9:-1"), 2, "positions go forwards"),
        (
            ("lens", "a", "--stat", "kl_compare", "--compare-with", "9"),
            2,
            "residual point 9 does not exist",
        ),
        (("lens", "a", "--out", "x.xyz"), 2, "cannot write 'x.xyz'"),
        (("lens", "a", "--out", "/proc/x.csv"), 1, "/proc/x.csv cannot be written: No such file"),
        (("lens", "--file", "no.txt"), 1, "no.txt: No such file or directory"),
        (("lens",), 2, "give a text, or --file"),
        (("generate", "a", "--layer", 3, "--strength", 1), 2, "the model has blocks 0 to 2"),
        (("slopes", "--file", "TEXT", "--out", "x.html", "--layer", 3), 2, "blocks 0 to 2"),
        (
            ("slopes", "--file", "TEXT", "--out", "x.html", "--layer", 1, "--layer", 1),
            2,
            "--layer names a block twice: 1, 1",
        ),
        (("generate", "a", "--layer", 1, "--strength", "nan"), 2, "nan is not a finite number"),
        (("generate", "a", *PATCH, "--mode", "replace"), 2, "'replace' is not one of interpolate"),
        (("generate", "a", *PATCH, "--embedding", "lens"), 2, "--embedding lens needs --lens"),
        (("score", "--file", "TEXT", "--layer", 3, "--strength", 1), 2, "blocks 0 to 2"),
        (("score", "--file", "TEXT", *PATCH, "--context", 1), 2, "--context"),
        (("slopes", "--file", "TEXT", "--out", "x.html", "--scope", "some"), 2, "'some' is not"),
        (
            ("train-patch", "--file", "TEXT", "--out", "x.safetensors", "--layer", 3),
            2,
            "blocks 0 to 2",
        ),
        (("generate", "a", *PATCH, "--temperature", -1), 2, "--temperature"),
        (("generate", "a", *PATCH, "--max-new-tokens", 0), 2, "--max-new-tokens"),
        (("demo", "--results", "nowhere"), 1, "there is no directory nowhere"),
        (("fit",), 2, "No such command 'fit'"),
    ],
)
def test_a_mistake_is_one_line_before_the_model_is_loaded(
    command: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: Path,
    text: Path,
    arguments: tuple,
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = str(arguments[0]).replace("-", "_")
    if name != "fit":
        module = importlib.import_module(f"lens_interventions.cli.{name}")
        monkeypatch.setattr(module, "load", lambda *_: pytest.fail("it loads the model"))
        arguments = (*arguments, "--model", model)
    found, out, err = command(*(text if word == "TEXT" else word for word in arguments))
    assert (found, out) == (status, "")
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Errno" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"model", "text.txt"}


def test_the_config_alone_tells_how_many_blocks_there_are(model: Path, tmp_path: Path) -> None:
    assert known_blocks(model) == AutoConfig.from_pretrained(model).num_hidden_layers == 3
    assert known_blocks("owner/not-in-the-cache") is None
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        known_blocks(tmp_path)


@pytest.mark.usefixtures("user_cache")
def test_of_the_default_model_nothing_is_known_until_it_is_converted() -> None:
    assert known_blocks(None) is None


def test_options_name_what_the_registries_have() -> None:
    assert tuple(MODES) == patch_options.MODES
    assert choices("scale") == patch_options.SCALES
    assert choices("embedding") == patch_options.EMBEDDINGS
    assert choices("gate_on") == patch_options.GATES
    assert tuple(SCOPES) == options.SCOPES
    assert TOKEN_SOURCES == DRAWN


def test_without_a_command_the_commands_are_listed(command: Run) -> None:
    status, out, _ = command()
    assert status == 2
    assert "train-patch" in out
