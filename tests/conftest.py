"""Fixtures shared by all tests: tiny bridges, the real default model, seeds."""

import os
import sys

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings
from transformer_lens.model_bridge import TransformerBridge

from tests.clean import left_as_found
from tests.tiny import LENS_ARCHITECTURES, shared_bridge

settings.register_profile("seeded", deadline=None, derandomize=True)
settings.load_profile("seeded")

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core already
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=LENS_ARCHITECTURES)
def bridge(request: pytest.FixtureRequest) -> Iterator[TransformerBridge]:
    """A tiny float64 bridge of every architecture in turn, checked to be left as it was found.

    The bridges live as long as the session; a test that means to change one builds its own with
    `tiny_bridge`. To run on some architectures only:
    `@pytest.mark.parametrize("bridge", ["gpt2", "llama"], indirect=True)`.
    """
    with left_as_found(shared_bridge(request.param)) as shared:
        yield shared


@pytest.fixture(scope="session")
def default_bridge() -> TransformerBridge:
    """The embedded default model, float32 on the CPU."""
    from lens_interventions import load_model

    return load_model(device="cpu")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`lens-interventions` with arguments: exit status, standard output and standard error."""
    from lens_interventions import cli

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lens-interventions", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_command
