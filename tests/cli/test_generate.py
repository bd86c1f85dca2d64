"""`lens-interventions generate` on a tiny model."""

import importlib
import re

import pytest
import torch

import lens_interventions as li
from lens_interventions import _progress
from tests.support.tiny import shared_bridge, tiny_bridge

PROMPT = "the people say that"
PATCH = li.NextTokenPatch(layer=1, strength=0.5, first_position=1)
NEW = ("--max-new-tokens", 7)
USUAL = ["generate", "x", "--layer", "1", "--strength", "0.1"]


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama, in a wide terminal."""
    module = importlib.import_module("lens_interventions.cli.generate")
    monkeypatch.setattr(module, "load", lambda *_: shared_bridge("llama"))
    monkeypatch.setenv("COLUMNS", "200")
    return command


def flat(text):
    """Letters and digits alone: the terminal breaks lines and draws boxes."""
    return re.sub(r"\W", "", text)


def test_continuations_side_by_side(run):
    bridge = shared_bridge("llama")
    status, out, err = run(
        "generate", PROMPT, "--layer", 1, "--strength", 0.5, "--compare", "--max-new-tokens", 12
    )
    assert status == 0, err
    assert "no patch" in out
    assert "layer 1, interpolate 0.5" in out
    expected = li.generate(bridge, PROMPT, [None, PATCH], max_new_tokens=12)
    for row, text in enumerate(expected.texts):
        assert f"{int(expected.lengths[row])} tokens" in out
        assert f"{-float(expected.log_probs[row].nanmean()):.2f} nats" in out
        assert flat(text)[:12] in flat(out)


def test_whoever_waits_sees_how_far_it_is(run, monkeypatch):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    status, _, err = run("generate", PROMPT, "--layer", 1, "--strength", 0.5, *NEW)
    assert status == 0
    assert "7/7" in err.splitlines()[-1]


def test_whoever_stops_it_sees_what_was_written(run, monkeypatch):
    module = importlib.import_module("lens_interventions.cli.generate")
    bridge, runs = tiny_bridge("llama"), []
    arguments = ("generate", PROMPT, "--layer", 1, "--strength", 0.5, "--compare")
    expected = li.generate(bridge, PROMPT, [None, PATCH], max_new_tokens=3).texts

    def stop(_residual, hook):
        runs.append(hook.name)
        if len(runs) == 4:  # one for the prompt, and one for each token
            raise KeyboardInterrupt

    bridge.add_hook("ln_final.hook_in", stop)
    monkeypatch.setattr(module, "load", lambda *_: bridge)
    status, _, err = run(*arguments)
    assert status == 130
    assert f"no patch has written {expected[0]!r}" in err
    assert f"layer 1, interpolate 0.5 has written {expected[1]!r}" in err


def test_options_reach_the_patch_and_the_sampling(run):
    bridge = shared_bridge("llama")
    options = "--mode add --source random --scale norm --embedding W_U --window 3 --gate 1"
    options += " --gate-on output"
    rules = "--temperature 1.5 --top-p 0.9 --repetition-penalty 1.2 --seed 4 --only-generated"
    status, out, err = run(
        *f"generate x --layer 0 --layer 2 --strength 0.3 {options} {rules}".split(),
        *("--max-new-tokens", 9, "--first-position", 0),
    )
    assert status == 0, err
    assert (
        "layer 0, 2, add 0.3, source random, scale norm, embedding W_U, first_position 0, "
        "positions generated, gate_on output, window 3, gate 1" in out
    )
    from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

    patch = li.NextTokenPatch(
        layer=(0, 2),
        strength=0.3,
        mode="add",
        source="random",
        scale="norm",
        embedding="W_U",
        window=3,
        gate=1.0,
        gate_on="output",
        positions="generated",
        seed=4,
    )
    expected = li.generate(
        bridge,
        "x",
        patch,
        max_new_tokens=9,
        do_sample=True,
        temperature=1.5,
        logits_processor=[RepetitionPenaltyLogitsProcessor(1.2), TopPLogitsWarper(0.9)],
        seed=4,
    )
    assert f"{-float(expected.log_probs.nanmean()):.2f} nats" in out


def test_a_trained_write_is_named_and_applied(run, tmp_path):
    bridge = shared_bridge("llama")
    texts = ["the people say that the people say the time. " * 12]
    options = li.TrainingOptions(window=12, batch_size=2, held_out_windows=2)
    write = li.train_patch(
        *(bridge, texts),
        layer=1,
        rank=4,
        source="current",
        steps=30,
        options=options,
        progress=False,
    ).write
    write.save(tmp_path / "write.safetensors")
    status, out, err = run(
        *("generate", PROMPT, "--write", tmp_path / "write.safetensors", "--compare"),
        *("--window", 3, "--max-new-tokens", 9),
    )
    assert status == 0, err
    assert "layer 1, learned write, source current, window 3" in out
    patch = write.patch(window=3)
    expected = li.generate(bridge, PROMPT, [None, patch], max_new_tokens=9)
    told = [f"{-float(row.nanmean()):.2f} nats" for row in expected.log_probs]
    assert told[0] != told[1]
    assert all(each in out for each in told)


def test_loops_are_marked(monkeypatch, run):
    bridge = tiny_bridge("llama")
    ids = bridge.to_tokens("time they mean it, ", prepend_bos=False)[0]
    module = importlib.import_module("lens_interventions.cli.generate")
    before = bridge.to_tokens("And then", prepend_bos=False)[0]
    row = torch.cat([before, ids.repeat(5), torch.tensor([-1, -1])])
    text, found = module._marked(bridge.tokenizer, row)
    assert text.plain == "And then⟲" + "time they mean it, " * 5
    assert found == f"a loop of {len(ids)} tokens, 5.0 times round from token {len(before)}"
    first_round = next(span for span in text.spans if "on yellow" in str(span.style))
    assert text.plain[first_round.start : first_round.end].strip("⟲") == "time they mean it, "
    text, found = module._marked(bridge.tokenizer, before)
    assert (text.plain, found) == ("And then", "no loop")


def test_loops_are_marked_after_characters_that_steer_a_terminal():
    class Steering:
        """The tokens are characters."""

        def decode(self, ids, **_):
            return "".join(map(chr, ids))

    row = torch.tensor([*map(ord, "\r\x1b\n\x9b"), *map(ord, "abcde" * 4)])
    module = importlib.import_module("lens_interventions.cli.generate")
    text, _ = module._marked(Steering(), row)
    assert text.plain == "␍␛\n␦⟲" + "abcde" * 4


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (["generate", "x", "--layer", "1"], "--strength", 2),
        (["generate", "x", "--layer", "9", "--strength", "0.1"], "blocks 0 to 2", 1),
        (["generate", "x", "--layer", "1", "--strength", "nan"], "not a finite number", 2),
        ([*USUAL, "--top-p", "0.5"], "--top-p", 2),
        ([*USUAL, "--temperature", "1", "--top-p", "5"], "--top-p", 2),
        ([*USUAL, "--embedding", "lens"], "--embedding lens needs --lens", 2),
        ([*USUAL, "--gate-on", "output"], "--gate-on output needs --gate", 2),
        ([*USUAL, "--temperature", "-1"], "--temperature", 2),
        ([*USUAL, "--temperature", "1", "--top-p", "nan"], "less than or equal to 1, got 'nan'", 2),
        (["generate", "", "--layer", "1", "--strength", "0.1"], "the text is empty", 2),
        ([*USUAL, "--max-new-tokens", "0"], "--max-new-tokens", 2),
        (USUAL[:4], "give --layer and --strength, or --write FILE from train-patch", 2),
        (["generate", "x", "--write", "no.safetensors"], "no.safetensors", 1),
        (["generate", "x", "--write", __file__], "is not a saved write", 1),
    ],
)
def test_mistakes_are_named_in_a_line(run, arguments, message, status):
    code, _, err = run(*arguments)
    assert code == status
    assert message in err
    assert "Traceback" not in err
