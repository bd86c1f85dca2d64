"""The explorer answers at once, and a long session takes no more memory than a short one.

The embedded default model, asked over the loopback as the page asks, without a browser.
"""

import itertools
import json
import statistics
import time
import urllib.request
from typing import Any

import psutil

import lens_interventions as li
from benchmarks.command import run
from benchmarks.results import Row
from lens_interventions.materials import prose

WORDS = 8  # of a prompt of the long session


def seconds(url: str, task: str, until: str, **state: Any) -> float:
    """Seconds until an event of an answer has come whole; the rest is read as well."""
    body = json.dumps({"tab": "benchmark", "state": state}).encode()
    start = time.perf_counter()
    taken = float("nan")
    with urllib.request.urlopen(f"{url}run/{task}", data=body) as answer:
        event = b""
        for line in answer:
            event = line if line.startswith(b"event: ") else event
            if line == b"\n" and event == f"event: {until}\n".encode():
                taken = time.perf_counter() - start
    return taken


def requests(n: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Task, last event and state of requests of every kind, hardly one like another."""
    words = " ".join(document.text for document in prose()).split()
    pieces = (" ".join(words[i : i + WORDS]) for i in itertools.count(step=WORDS))
    patch = {"layer": 24, "strength": 0.2}
    kinds = itertools.cycle(
        [
            ("read", "view", {}),
            ("cell", "curves", {"point": "20_pre"}),
            ("read", "view", {"statistic": "kl_final", "commitment": "half"}),
            ("patch", "exact", {"panel": "patch", **patch}),
            ("write", "end", {"panel": "write", "max_new_tokens": 3, **patch}),
            ("csv", "file", {}),
            ("read", "error", {"text": ""}),
        ]
    )
    return [
        (task, last, {"text": text, **state})
        for (task, last, state), text in zip(kinds, itertools.islice(pieces, n), strict=False)
    ]


def measure(quick: bool) -> list[Row]:
    """Seconds of the first view and of clicks; growth of memory after the cache is full."""
    long, warm = (14, 7) if quick else (500, 100)
    bridge = li.load_model(device="cpu")
    start = time.perf_counter()
    explorer = li.explore(bridge)
    try:
        urllib.request.urlopen(explorer.url).read()
        seconds(explorer.url, "read", "view")
        first = time.perf_counter() - start
        clicks = [
            [
                seconds(explorer.url, "cell", event, point="20_pre", position=position)
                for position in positions
            ]
            for event, positions in (("cell", range(1, 7)), ("curves", range(7, 13)))
        ]
        memory = []
        for number, (task, last, state) in enumerate(requests(long)):
            if number == warm:
                memory.append(psutil.Process().memory_info().rss)
            seconds(explorer.url, task, last, **state)
        memory.append(psutil.Process().memory_info().rss)
    finally:
        explorer.stop()
    return [
        Row(work="first view of the default prompt", measured=first, unit="s", at_most=3),
        Row(
            work="a click, to the cell's numbers",
            measured=statistics.median(clicks[0]),
            unit="s",
            at_most=0.3,
        ),
        Row(
            work="a click, to the curves of its position",
            measured=statistics.median(clicks[1]),
            unit="s",
        ),
        Row(
            work=f"growth from request {warm} to {long}",
            measured=(memory[1] - memory[0]) / 2**20,
            unit="MiB",
            at_most=64,
        ),
    ]


if __name__ == "__main__":
    run(measure)
