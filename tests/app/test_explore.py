"""Starting and stopping the explorer in a process that goes on."""

import importlib.util
import json
import logging
import threading
import urllib.request

import pytest

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge


def test_it_runs_beside_a_notebook_and_stops():
    with left_as_found(shared_bridge("llama")) as bridge:
        explorer = li.explore(bridge)
        try:
            frame = explorer._repr_html_()
            assert f'<iframe src="{explorer.url}"' in frame
            asked = urllib.request.Request(
                f"{explorer.url}run/read", data=json.dumps({"state": {"text": "say"}}).encode()
            )
            with urllib.request.urlopen(asked) as answered:
                assert b"event: view" in answered.read()
        finally:
            explorer.stop()
    assert not [thread for thread in threading.enumerate() if "explorer" in thread.name]


def test_stopping_ends_what_is_being_written(capfd):
    with left_as_found(shared_bridge("llama")) as bridge:
        explorer = li.explore(bridge)
        state = {"panel": "write", "text": "say", "layer": 1, "max_new_tokens": 100}
        asked = urllib.request.Request(
            f"{explorer.url}run/write", data=json.dumps({"state": state}).encode()
        )
        with urllib.request.urlopen(asked) as answered:
            assert answered.readline() == b"event: start\n"
            explorer.stop()
            assert b"event: cancelled" in answered.read()
    said = capfd.readouterr().err.splitlines()
    assert all(line.startswith("trying ") for line in said)  # on a slow machine
    assert not [thread for thread in threading.enumerate() if "explorer" in thread.name]


def test_the_logging_of_the_process_goes_on(tmp_path):
    log = logging.getLogger("of the user")
    handler = logging.FileHandler(tmp_path / "run.log", mode="w")
    log.addHandler(handler)
    levels = {name: logging.getLogger(name).level for name in ("uvicorn", "uvicorn.access")}
    try:
        li.explore(shared_bridge("llama")).stop()
        log.warning("said afterwards")
        assert "said afterwards" in (tmp_path / "run.log").read_text()
        assert levels == {name: logging.getLogger(name).level for name in levels}
    finally:
        log.removeHandler(handler)
        handler.close()


def test_what_is_missing_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    with pytest.raises(RuntimeError, match=r'needs uvicorn; .* pip install "\.\[app\]"'):
        li.explore(shared_bridge("llama"))


def test_a_port_that_does_not_exist():
    with pytest.raises(OSError, match="cannot listen on port 99999"):
        li.explore(shared_bridge("llama"), port=99999)
