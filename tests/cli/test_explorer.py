"""`lens-interventions app`: it says where it is, serves there, and stops."""

import importlib
import json
import socket
import urllib.request

import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

import lens_interventions as li
from lens_interventions.app.explore import Explorer
from tests.support.explorer import heat_maps
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


def test_a_jacobian_lens_is_offered_beside_the_raw_one(command, opened, monkeypatch, tmp_path):
    path = tmp_path / "lens.pt"
    JacobianLens({0: 2 * torch.eye(32), 1: torch.eye(32)}, n_prompts=1, d_model=32).save(str(path))
    views = []

    def ask(explorer):
        state = {"text": "say", "lens": "given"}
        asked = urllib.request.Request(
            f"{explorer.url}run/read", data=json.dumps({"state": state}).encode()
        )
        with urllib.request.urlopen(asked) as answered:
            views.append(json.loads(answered.read().split(b"event: view\ndata: ")[1]))

    monkeypatch.setattr(Explorer, "wait", ask)
    status, _, err = command("app", "--lens", path, "--no-browser")
    assert status == 0, err
    assert not opened
    recipe = views[0]["recipe"]
    assert f"lens = JacobianLens.load({str(path)!r})" in recipe["python"]
    assert f"--lens {path}" in recipe["command"]
    names = {}
    monkeypatch.setattr(li, "load_model", lambda: shared_bridge("llama"))
    exec(recipe["python"], names)
    (shown,) = heat_maps(views[0]["figure"])
    expected = names["trajectory"].top_logits[1:, 0, :, 0]
    torch.testing.assert_close(torch.tensor(shown).double(), expected, atol=1e-4, rtol=0)


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
