"""What the page offers to copy makes the same numbers, or opens the same view."""

import json
import shlex
import sys
from urllib.parse import parse_qsl

import numpy as np
import pytest

import lens_interventions as li
from lens_interventions.app.commands import command as recipe_command
from lens_interventions.app.commands import fragment
from lens_interventions.app.state import State, defaults, parse_state
from lens_interventions.app.subject import Origin, Subject
from lens_interventions.drawing.labels import rounded
from tests.app.conftest import TEXT
from tests.support.explorer import answer, client_of, events, heat_maps
from tests.support.pages import assert_command_exists
from tests.support.tiny import shared_bridge, tiny_bridge

READ = [
    {"statistic": "kl_final", "every": 2, "include_input": True},
    {"statistic": "js_input", "last": 3},
    {"statistic": "watched_rank", "watch": [70], "watch_text": " mean"},
]
PATCH = [
    {"layer": 1, "strength": 0.4, "mode": "add", "source": "shuffled", "seed": 3},
    {"layer": 2, "gate": 1.5, "window": 4, "scale": "raw", "embedding": "W_U"},
    {"layer": 1, "only_position": True, "position": 2},
]
WRITE = [
    {"layer": 1, "temperature": 0.8, "top_p": 0.9, "top_k": 30, "repetition_penalty": 1.2},
    {"layer": 1, "prefix": [20, 21], "only_generated": True, "max_new_tokens": 5},
    {"strength": -0.5, "mode": "add", "max_new_tokens": 4, "seed": 5, "only_position": True},
]


def run(python, monkeypatch, **names):
    """What names the program has in the end, with some from before."""
    monkeypatch.setattr(li, "load_model", lambda _: shared_bridge("llama"))
    exec(compile(python, "recipe", "exec"), names)
    return names


def same_figure(view, figure):
    expected = heat_maps(json.loads(figure.to_json()))
    return all(
        np.allclose(np.array(a, float), np.array(b, float), atol=2e-4, equal_nan=True)
        for a, b in zip(heat_maps(view["figure"]), expected, strict=True)
    )


@pytest.mark.parametrize("state", READ)
def test_python_of_read(client, monkeypatch, state):
    view = answer(client, "read", text=TEXT, **state)["view"]
    assert same_figure(view, run(view["recipe"]["python"], monkeypatch)["figure"])


@pytest.mark.parametrize("state", PATCH)
def test_python_of_patch(client, monkeypatch, state):
    found = answer(client, "patch", panel="patch", text=TEXT, **state)
    names = run(found["view"]["recipe"]["python"], monkeypatch)
    assert same_figure(found["view"], names["figure"])
    assert found["exact"]["patched"] == pytest.approx(names["log_probs"][1, 0].tolist())


@pytest.mark.parametrize("state", WRITE)
def test_python_of_write(client, monkeypatch, state):
    found = events(client, "write", panel="write", text=TEXT, **state)
    out = run(found[0][1]["recipe"]["python"], monkeypatch)["out"]
    for row, arm in enumerate(("clean", "patched")):
        shown = [data["id"] for name, data in found if name == "token" and data["arm"] == arm]
        assert shown == out.tokens[row][out.tokens[row] >= 0].tolist()


def test_python_of_compare(client, monkeypatch):
    state = {"panel": "compare", "text": TEXT, "other_text": TEXT.replace("mean", "say")}
    view = answer(client, "compare", **state)["view"]
    assert same_figure(view, run(view["recipe"]["python"], monkeypatch)["figure"])


@pytest.mark.usefixtures("small_default_lens")
@pytest.mark.parametrize("lens", ["raw", "fitted"])
def test_python_of_two_models(subject, monkeypatch, lens):
    other = tiny_bridge("llama", seed=1)
    state = {"panel": "compare", "text": TEXT, "other_text": "", "lens": lens}
    with client_of(Subject(subject.bridge, subject.origin, other=other)) as client:
        view = answer(client, "compare", **state)["view"]
    names = run(view["recipe"]["python"], monkeypatch, other=other)
    assert same_figure(view, names["figure"])


@pytest.mark.parametrize(
    ("task", "states", "names"),
    [
        ("read", READ, {"lens", "app"}),
        ("patch", PATCH, {"app"}),
        ("write", WRITE, {"generate", "app"}),
    ],
)
def test_commands_exist_and_hold_the_view(client, task, states, names):
    seen = set()
    for state in states:
        state = {"panel": task, "text": TEXT, **state}
        recipe = next(
            data["recipe"] for _, data in events(client, task, **state) if "recipe" in data
        )
        words = shlex.split(recipe["command"])
        seen.add(words[1])
        # An option and its value may be one word.
        assert_command_exists(shlex.join(w.partition("=")[0] for w in words if w != "--"))
        if words[1] == "app":
            pairs = parse_qsl(words[words.index("--view") + 1], keep_blank_values=True)
            view = {n: v if isinstance(defaults()[n], str) else json.loads(v) for n, v in pairs}
            assert parse_state(view) == parse_state(state)
        else:
            assert words[-2:] == ["--", TEXT]
    assert seen == names


def test_a_command_that_reads_prints_the_same_numbers(client, command, monkeypatch):
    from lens_interventions.model import load

    monkeypatch.setattr(load, "load_model", lambda *_, **__: shared_bridge("llama"))
    text = "-- say $HOME `mean` 'blood'"
    view = answer(client, "read", text=text, statistic="entropy", last=5)["view"]
    status, out, _ = command(*shlex.split(view["recipe"]["command"])[1:])
    assert status == 0
    assert "Entropy of each layer's distribution" in out
    printed = [line.split()[1:] for line in out.splitlines()]
    (shown,) = heat_maps(view["figure"])
    assert all([str(rounded(value)) for value in row] in printed for row in shown)


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [({"mode": "add"}, False), ({"mode": "correct"}, True), ({"mode": "add", "gate": 1.0}, True)],
)
def test_a_command_names_the_lens_where_its_patch_reads_one(patch, wanted):
    """`generate` refuses one that has no effect."""
    origin = Origin(options=(), lens_options=("--lens", "lens.pt"))
    subject = Subject(shared_bridge("llama"), origin, lens=lambda resid, _layer: resid)
    words = shlex.split(recipe_command(subject, State(panel="write", lens="given", **patch)))
    assert words[1] == "generate"
    assert ("--lens" in words) == wanted


def test_on_windows_a_text_is_between_double_quotes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    subject = Subject(shared_bridge("llama"), Origin(options=()))
    line = recipe_command(subject, State(panel="read", text='say "mean" & 100%\\'))
    assert line == 'lens-interventions lens -- "say \\"mean\\" & 100%\\\\"'
    line = recipe_command(subject, State(panel="patch", text="mean", layer=1))
    assert line == 'lens-interventions app --view "panel=patch&text=mean&layer=1"'


def test_a_bridge_from_a_notebook_has_no_command(client):
    with client_of(Subject(shared_bridge("llama"), Origin())) as other:
        recipe = answer(other, "read", text=TEXT)["view"]["recipe"]
    assert recipe["command"] is None
    assert "# bridge is the model that li.explore was given." in recipe["python"]


def test_the_address_leaves_defaults_out():
    assert fragment(State()) == ""
    assert fragment(State(text="a b&c", strength=0.5)) == "text=a%20b%26c&strength=0.5"
