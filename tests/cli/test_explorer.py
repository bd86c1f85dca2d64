"""`lens-interventions app`: it says where it is, serves there, and stops."""

import importlib
import json
import shlex
import socket
import urllib.request

import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

import lens_interventions as li
from lens_interventions.app.explore import Explorer, bound_socket
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


@pytest.mark.usefixtures("opened")
def test_the_second_model_is_named_only_where_the_explorer_opens_again(command, monkeypatch):
    commands = {}

    def ask(explorer):
        for panel, task in (("read", "view"), ("compare", "view"), ("write", "start")):
            state = {"panel": panel, "text": "say", "other_text": "", "max_new_tokens": 1}
            asked = urllib.request.Request(
                f"{explorer.url}run/{panel}", data=json.dumps({"state": state}).encode()
            )
            with urllib.request.urlopen(asked) as answered:
                event = answered.read().decode().split(f"event: {task}\ndata: ")[1]
            commands[panel] = json.loads(event.partition("\n")[0])["recipe"]["command"]

    monkeypatch.setattr(Explorer, "wait", ask)
    status, _, err = command("app", "--model", "one", "--other", "two", "--no-browser")
    assert status == 0, err
    words = {panel: shlex.split(said)[1:] for panel, said in commands.items()}
    assert words["read"] == ["lens", "--model", "one", "--", "say"]
    assert words["write"][0] == "generate"
    assert "--other" not in words["write"]
    assert words["compare"][:3] == ["app", "--other", "two"]
    assert words["compare"][-2:] == ["--model", "one"]


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


def test_a_port_that_is_taken_is_found_before_a_model_is_loaded(command, monkeypatch):
    module = importlib.import_module("lens_interventions.cli.explorer")
    loaded = []
    monkeypatch.setattr(module, "load", lambda *_: loaded.append("a model"))
    with bound_socket(0) as taken:  # of an explorer that is loading its model
        status, _, err = command("app", "--port", taken.getsockname()[1])
    assert status == 1
    assert "cannot listen on port" in err
    assert not loaded
