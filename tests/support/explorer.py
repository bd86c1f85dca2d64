"""The explorer as its page talks to it."""

import json
from typing import Any

import torch
from starlette.testclient import TestClient

from lens_interventions.app.server import make_server
from lens_interventions.app.subject import Subject
from lens_interventions.app.worker import Worker

TOKEN = "secret"
HOST = "http://127.0.0.1:8000"


def client_of(subject: Subject) -> TestClient:
    """A client that knows the token; enter it, so that the server also ends."""
    return TestClient(make_server(subject, TOKEN, Worker()), base_url=f"{HOST}/{TOKEN}/")


def events(client: TestClient, task: str, tab: str = "tab", **state: Any) -> list[tuple[str, Any]]:
    """The events of an answer, without those of progress."""
    found = all_events(client, task, tab, **state)
    return [event for event in found if event[0] != "progress"]


def all_events(
    client: TestClient, task: str, tab: str = "tab", **state: Any
) -> list[tuple[str, Any]]:
    """The events of an answer."""
    answer = client.post(f"run/{task}", content=json.dumps({"tab": tab, "state": state}))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def answer(client: TestClient, task: str, **state: Any) -> dict[str, Any]:
    """The events of an answer by name; the last of each name."""
    found = dict(events(client, task, **state))
    assert "error" not in found, found
    return found


def refusal(client: TestClient, task: str, **state: Any) -> str:
    """The sentence with which a request ends that is answered by none."""
    name, data = events(client, task, **state)[-1]
    assert name == "error", name
    return data["message"]


def heat_maps(figure: dict[str, Any]) -> list[list[list[float | None]]]:
    """The numbers of the heat maps of a figure, `[map][row][column]`."""
    return [trace["z"] for trace in figure["data"] if trace["type"] == "heatmap"]


def close(shown, expected):
    """Whether numbers of a figure, which has four decimals, are these."""
    return torch.allclose(torch.tensor(shown, dtype=torch.float64), expected, rtol=0, atol=6e-5)
