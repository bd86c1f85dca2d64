"""Fixtures shared by all tests: tiny bridges, the real embedded model, seeds.

The process that hands tests to others reads this file too, before they start, and needs nothing of
torch: what a fixture is made of is imported where it is made.
"""

import gc
import os
import sys

# Millions of objects of torch and transformers live as long as the session. Looking through them
# again and again is a fifth of the time of importing them, and some of that of every test.
gc.disable()

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from hypothesis import settings

from tests.support.architectures import LENS_ARCHITECTURES

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def pytest_collection_finish() -> None:
    gc.freeze()
    # Each shared model is thousands of objects, through which Python would look again and again.
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: begun last, one would run alone while the other cores wait."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


settings.register_profile("seeded", deadline=None, derandomize=True)
settings.load_profile("seeded")

if "PYTEST_XDIST_WORKER" in os.environ:
    # One process per core already. torch reads the variable, and so do commands, kernels and pools
    # that a test starts: with more threads than cores they wait for each other for minutes.
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module", autouse=True)
def _unchecked_where_long(request: pytest.FixtureRequest) -> Iterator[None]:
    """No checks of annotations in files of long tests: what these run has tests of its own."""
    if request.node.get_closest_marker("long") is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(params=LENS_ARCHITECTURES)
def bridge(request: pytest.FixtureRequest) -> "Iterator[TransformerBridge]":
    """A tiny float64 bridge of every architecture in turn, checked to be left as it was found.

    The bridges live as long as the session; a test that means to change one builds its own with
    `tiny_bridge`. To run on some architectures only:
    `@pytest.mark.parametrize("bridge", ["gpt2", "llama"], indirect=True)`.
    """
    from tests.support.clean import left_as_found
    from tests.support.tiny import shared_bridge

    with left_as_found(shared_bridge(request.param)) as shared:
        yield shared


@pytest.fixture
def llama() -> "Iterator[TransformerBridge]":
    """The tiny Llama of `bridge`, for tests that one architecture is enough for."""
    from tests.support.clean import left_as_found
    from tests.support.tiny import shared_bridge

    with left_as_found(shared_bridge("llama")) as shared:
        yield shared


@pytest.fixture
def exact() -> Iterator[None]:
    """For a module's `pytestmark`: float64 throughout, see `tests/support/exact.py`."""
    from tests.support.exact import float64_softmax

    with float64_softmax():
        yield


@pytest.fixture(scope="module")
def unrounded() -> Iterator[None]:
    """For a module's `pytestmark`: no norm rounds to float32, see `tests/support/exact.py`."""
    from tests.support.exact import no_rounding

    with no_rounding():
        yield


@pytest.fixture
def always_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors differ in which product is faster; what is taken must be right on all of them."""
    import torch

    from lens_interventions.model import product_trials

    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, _rows: True)
    monkeypatch.setattr(product_trials, "_is_faster_packed", lambda _shape, _rows: False)


@pytest.fixture
def without_gradients() -> Iterator[None]:
    """For a module's `pytestmark`: units of experiments are measured so."""
    import torch

    with torch.no_grad():
        yield


@pytest.fixture
def as_users_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the type checks of the test session, which would speak before the library does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def default_bridge() -> "TransformerBridge":
    """The embedded model, float32 on the CPU."""
    from lens_interventions import load_model

    return load_model(device="cpu")


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory for converted models, which does not exist yet."""
    from lens_interventions.model.user_cache import CACHE_VARIABLE

    directory = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(directory))
    return directory


@pytest.fixture(scope="module")
def few_templates() -> Iterator[None]:
    """The words of one group in short sentences: planted models read letters, slowly."""
    from lens_interventions import materials

    frames = (
        "They study {}. Few know",
        "To me {} is all. I sing of",
        "Look up {}, then",
        "No {} for",
    )
    of_group = [t for t in materials.templates() if t.group == "idea" and t.distance == "near"]
    names = dict.fromkeys(t.frame for t in of_group)
    prefix = dict(zip(names, frames, strict=True))
    few = tuple(replace(t, prefix=prefix[t.frame].format(t.word)) for t in of_group)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(materials, "templates", lambda: few)
        yield


@pytest.fixture(scope="session")
def trajectory() -> object:
    """What figures are drawn of: every statistic of two texts."""
    from lens_interventions.lens.logit_lens import logit_lens
    from tests.support.figures import TEXTS
    from tests.support.tiny import shared_bridge

    return logit_lens(
        shared_bridge("llama"),
        TEXTS,
        watch=[" say", " mean"],
        divergences=("kl", "kl_reverse", "js"),
        compare_with=1,
        next_token=" say",
    )


@pytest.fixture(scope="session")
def ended() -> object:
    """The same without a token after the last one."""
    from lens_interventions.lens.logit_lens import logit_lens
    from tests.support.figures import TEXTS
    from tests.support.tiny import shared_bridge

    return logit_lens(shared_bridge("llama"), TEXTS)


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
