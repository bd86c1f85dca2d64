"""Who is let in, what is taken, and that nothing of it hurts the server or the model."""

import gc

import pytest
from torch import Tensor

from lens_interventions.app.page import page
from lens_interventions.app.state import MOST_CHARACTERS, State, parse_state
from lens_interventions.app.subject import Origin, Subject
from tests.app.conftest import TEXT
from tests.support.explorer import HOST, TOKEN, answer, client_of, events, heat_maps
from tests.support.tiny import tiny_bridge


def test_the_page_and_its_files_come_from_this_server_alone(client):
    shown = client.get("")
    assert shown.status_code == 200
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "http" not in policy
    for name in ("explorer.js", "explorer.css", "plotly.js", "icon.svg"):
        assert client.get(f"static/{name}").status_code == 200
    assert 'src="http' not in shown.text


@pytest.mark.parametrize("path", ["static/../page.py", "static/%2e%2e%2fpage.py", "static/a", "x"])
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/wrong/", {}),
        (f"/{TOKEN}x/", {}),
        (f"/{TOKEN}/", {"host": "evil.example"}),
        (f"/{TOKEN}/", {"host": "127.0.0.1.evil.example:8000"}),
        (f"/{TOKEN}/", {"host": "["}),
        (f"/{TOKEN}/", {"origin": "http://evil.example"}),
        (f"/{TOKEN}/", {"origin": "null"}),
    ],
)
def test_strangers_are_turned_away(client, path, headers):
    for method, place in (("GET", path), ("POST", f"{path}run/read")):
        answered = client.request(method, f"{HOST}{place}", headers=headers)
        assert answered.status_code == 403
        assert answered.headers["content-type"].startswith("text/plain")


def test_its_own_page_is_let_in(client):
    for host in ("127.0.0.1:8000", "localhost:8000"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert client.get("", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (b"{", 400, ""),
        (b"[" * 10_000, 400, ""),
        (b"[]", 400, "a request is an object"),
        (b'{"state": []}', 400, "must be an object"),
        (b'{"state": {"colour": 1}}', 400, "has no field 'colour'"),
        (b'{"state": {"strength": "much"}}', 400, "strength must be a number, got 'much'"),
        (
            b'{"state": {"strength": 1' + b"0" * 400 + b"}}",
            400,
            "strength must be a number, got 10",
        ),
        (b'{"state": {"strength": true}}', 400, "strength must be a number, got True"),
        (b'{"state": {"layer": 1.5}}', 400, "layer must be a whole number, got 1.5"),
        (b'{"state": {"watch": "abc"}}', 400, "watch must be a list"),
        (b'{"state": {"messages": [1]}}', 400, "messages must be a text, got 1"),
        (b'{"state": {"text": "' + b"a" * 50_000 + b'"}}', 400, "50,000 characters"),
        (b'{"state": {"text": "' + b"a" * 1_000_000 + b'"}}', 413, "too much for the explorer"),
    ],
)
def test_what_is_no_request_is_refused_in_words(client, content, status, sentence):
    answered = client.post("run/read", content=content)
    assert answered.status_code == status
    assert sentence in answered.json()["message"]
    assert len(answered.text) < 1000
    assert answer(client, "read", text=TEXT)["view"]  # the next one is served


def test_a_task_that_does_not_exist(client):
    assert "there are read, cell" in client.post("run/rm", json={}).json()["message"]


@pytest.mark.parametrize("text", ["\x00\x07 a", "‮a\u200b", "<script>alert(1)</script>", "$x$ <b>"])
def test_hostile_text_is_text(client, text):
    view = answer(client, "read", text=text)["view"]
    (shown,) = heat_maps(view["figure"])
    assert len(shown[0]) == len(view["strip"])
    # Plotly reads tags in labels: none of the text's own may be left.
    assert "<script" not in str(view["figure"]).replace("&lt;", "")


def test_the_page_escapes_what_it_names():
    bridge = tiny_bridge("llama", num_hidden_layers=1)
    bridge.cfg.model_name = "</script><script>alert(1)</script>"
    shown = page(Subject(bridge, Origin()))
    assert "<script>alert(1)" not in shown


@pytest.mark.parametrize("kind", [KeyError, IndexError])
def test_an_error_of_another_kind_does_not_end_the_server(
    client, subject, monkeypatch, capsys, kind
):
    error = kind("lost")

    def broken(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Subject, "tokens", broken)
        found = events(client, "read", text=TEXT)
    assert found == [
        (
            "error",
            {"message": f"{kind.__name__}: {error}. The terminal of the explorer tells more."},
        )
    ]
    assert "Traceback" in capsys.readouterr().err
    assert answer(client, "read", text=TEXT)["view"]


def test_hooks_and_weights_that_change_are_seen():
    bridge = tiny_bridge("llama")

    def shown(client):
        return heat_maps(answer(client, "read", text=TEXT)["view"]["figure"])

    with client_of(Subject(bridge, Origin())) as client:
        before = shown(client)
        bridge.add_hook("blocks.1.hook_resid_pre", lambda resid, hook: 2 * resid)
        hooked = shown(client)
        assert hooked != before
        bridge.reset_hooks()
        assert shown(client) == before
        bridge.original_model.get_output_embeddings().weight.data.mul_(1.5)
        bridge.original_model.get_output_embeddings().weight.detach().mul_(1.0)
        assert shown(client) != before


def test_what_is_kept_is_bounded():
    subject = Subject(tiny_bridge("llama", num_hidden_layers=1), Origin())
    made = [subject.kept(i, lambda i=i: i) for i in range(100)]
    assert made == list(range(100))
    assert len(subject._kept) == 24
    assert subject.kept(99, lambda: None) == 99  # the newest are those that stay


def test_a_state_that_is_sent_is_the_state():
    sent = {"text": "a", "watch": [1, 2], "strength": 1, "every": None, "chat": True}
    state = parse_state(sent)
    assert state == State(text="a", watch=(1, 2), strength=1.0, every=None, chat=True)
    assert parse_state({"text": "a" * MOST_CHARACTERS}).text


def test_a_model_without_a_readout_is_refused_before_it_is_served():
    with pytest.raises((ValueError, NotImplementedError)):
        Subject(tiny_bridge("mamba"), Origin())


KINDS = [
    ("read", {}),
    ("cell", {"point": "2_pre"}),
    ("read", {"statistic": "js_final", "commitment": "half"}),
    ("patch", {"panel": "patch", "layer": 1}),
    ("write", {"panel": "write", "layer": 1, "max_new_tokens": 2}),
    ("csv", {}),
    ("read", {"text": ""}),
]


def alive():
    """How many objects and tensors there are."""
    gc.collect()
    kinds = [type(each) for each in gc.get_objects()]
    return len(kinds), sum(issubclass(kind, Tensor) for kind in kinds)


def test_a_long_session_keeps_no_more_than_a_short_one():
    subject = Subject(tiny_bridge("llama"), Origin())
    held = []
    with client_of(subject) as client:
        for number in range(84):
            task, state = KINDS[number % len(KINDS)]
            text = TEXT[: 5 + number % 30]
            answered = client.post(f"run/{task}", json={"state": {"text": text, **state}})
            assert answered.status_code == 200
            if number in (41, 83):
                held.append(alive())
    (objects, tensors), (objects_later, tensors_later) = held
    assert tensors_later <= 1.1 * tensors
    assert objects_later <= 1.02 * objects
