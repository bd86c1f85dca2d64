"""An explorer of a tiny model, checked to leave it as it was found."""

import pytest

from lens_interventions.app.subject import Origin, Subject
from lens_interventions.fitting import default_lens
from tests.support.clean import left_as_found
from tests.support.explorer import client_of
from tests.support.tiny import shared_bridge

TEXT = "when people say plasma, they mean blood"


@pytest.fixture(scope="module")
def subject():
    with left_as_found(shared_bridge("llama")) as bridge:
        yield Subject(bridge, Origin(bridge="bridge = li.load_model('tiny')", options=()))


@pytest.fixture(scope="module")
def client(subject):
    with client_of(subject) as opened:
        yield opened


@pytest.fixture
def small_default_lens(user_cache, monkeypatch):
    """Default lenses are fitted within seconds, and not kept after the test."""
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
