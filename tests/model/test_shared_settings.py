"""Settings that threads share come back when the last thread has left."""

import threading

import huggingface_hub.constants as hub
import pytest
from transformers.utils import logging as transformers_logging

from lens_interventions.model import load
from lens_interventions.model.hub import hub_offline


def offline() -> bool:
    return hub.HF_HUB_OFFLINE


def bars() -> bool:
    return transformers_logging.is_progress_bar_enabled()


@pytest.fixture
def own_values(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    transformers_logging.enable_progress_bar()


@pytest.mark.usefixtures("own_values")
@pytest.mark.parametrize(
    ("changed", "value"), [(hub_offline, offline), (load._progress_bars.changed, bars)]
)
def test_two_threads_that_overlap_leave_the_setting_as_it_was(changed, value):
    own = value()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with changed():
            first_is_in.set()
            second_is_in.wait(30)
        first_is_out.set()

    def second():
        first_is_in.wait(30)
        with changed():
            second_is_in.set()
            first_is_out.wait(30)
            seen.append(value())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen, value()) == ([not own], own)


@pytest.mark.usefixtures("own_values")
def test_an_error_inside_another_block_gives_the_setting_back():
    with hub_offline():
        with pytest.raises(ArithmeticError), hub_offline():
            raise ArithmeticError
        assert offline()
    assert not offline()
