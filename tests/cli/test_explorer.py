"""`lens-interventions app`: it says where it is, serves there, and stops."""

import importlib
import socket
import urllib.request

import pytest

from lens_interventions.app.explore import Explorer
from tests.support.tiny import shared_bridge


@pytest.fixture
def opened(monkeypatch):
    """Addresses that a browser was asked to open; the model is a tiny one."""
    module = importlib.import_module("lens_interventions.cli.explorer")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))
    found = []
    monkeypatch.setattr(module.webbrowser, "open", found.append)
    return found


def test_it_serves_the_page_until_ctrl_c(command, opened, monkeypatch):
    pages = []

    def visit(explorer):
        with urllib.request.urlopen(explorer.url) as answered:
            pages.append(answered.read().decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Explorer, "wait", visit)
    status, out, err = command("app", "--view", "panel=write")
    assert status == 0, err
    assert "tiny-llama" in pages[0]
    (address,) = opened
    assert address.startswith("http://127.0.0.1:")
    assert address.endswith("/#panel=write")
    assert address in out
    assert "Stopped." in err
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_a_port_that_is_taken(command, opened):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = command("app", "--port", port)
    assert status == 1
    assert f"the explorer cannot listen on port {port}" in err
    assert "choose another, or 0" in err
    assert not opened
