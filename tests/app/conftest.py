"""An explorer of a tiny model, checked to leave it as it was found."""

import pytest

from lens_interventions.app.subject import Origin, Subject
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
