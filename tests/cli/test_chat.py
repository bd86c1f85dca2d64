"""`--chat` of `lens` and `generate`: the text is what a user says."""

import importlib

import pytest

import lens_interventions as li
from lens_interventions.lens.trajectory import Trajectory
from tests.support.small_last_word import chatty_bridge
from tests.support.tiny import shared_bridge

SAID = "people say"
PATCHED = ("--layer", 1, "--strength", 0.5, "--max-new-tokens", 3, "--chat")


@pytest.fixture(scope="module")
def chatty():
    return chatty_bridge()


def loads(monkeypatch, command, bridge):
    module = importlib.import_module(f"lens_interventions.cli.{command}")
    monkeypatch.setattr(module, "load", lambda *_: bridge)


def test_the_lens_reads_the_message_in_the_models_template(command, monkeypatch, chatty, tmp_path):
    loads(monkeypatch, "lens", chatty)
    out = tmp_path / "read.safetensors"
    status, _, error = command("lens", SAID, "--chat", "--layers", "0,final", "--out", out)
    assert status == 0, error
    expected = li.chat_tokens(chatty, [{"role": "user", "content": SAID}])
    assert Trajectory.load(out).tokens[0].tolist() == expected


def test_generate_answers_it(command, monkeypatch, chatty):
    loads(monkeypatch, "generate", chatty)
    status, printed, error = command("generate", SAID, *PATCHED)
    assert status == 0, error
    patch = li.NextTokenPatch(layer=1, strength=0.5, first_position=1)
    message = [{"role": "user", "content": SAID}]
    answer = li.generate(chatty, None, patch, messages=message, max_new_tokens=3)
    assert f"{-float(answer.log_probs.nanmean()):.2f} nats" in printed


def test_a_model_without_a_template_is_named(command, monkeypatch):
    loads(monkeypatch, "generate", shared_bridge("llama"))
    status, _, error = command("generate", SAID, *PATCHED)
    assert status == 1
    assert "has no chat template" in error
