"""The effect of every layer and position takes far less than a run of the model for each.

The embedded model, all 30 layers and 50 positions of a text.
"""

import statistics

from torch import Tensor

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import forward, in_turns, reference_tokens
from benchmarks.results import Row


def metric(logits: Tensor) -> Tensor:
    """The log-probability of one token at the end."""
    return logits[0, -1].log_softmax(-1)[0]


def measure(quick: bool) -> list[Row]:
    """Seconds of the map, and those of as many plain forwards beside it."""
    layers, positions = (2, 3) if quick else (None, 50)
    bridge = li.load_model(device="cpu")
    tokens = reference_tokens(bridge, positions + 1)
    rows = range(layers or int(bridge.cfg.n_layers))
    patch = li.NextTokenPatch(layer=rows, strength=0.1)

    def plain() -> None:
        forward(bridge, tokens)

    def effects() -> None:
        li.effect_map(bridge, tokens, metric, patch=patch, progress=False)

    before = statistics.median(in_turns({"forward": plain}, 5)["forward"])
    taken = in_turns({"map": effects}, 1)["map"][0]
    again = statistics.median(in_turns({"forward": plain}, 5)["forward"])
    cells = len(rows) * positions
    return [
        Row(
            work=f"{len(rows)} layers x {positions} positions",
            measured=taken,
            unit="s",
            at_most=60,
        ),
        Row(
            work="a plain forward for each cell, to it",
            measured=cells * (before + again) / 2 / taken,
            unit="x",
        ),
    ]


if __name__ == "__main__":
    run(measure)
