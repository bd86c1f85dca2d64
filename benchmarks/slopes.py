"""One map of slopes takes far less than the patched runs that say the same.

The embedded default model: every layer, 8 sources and 3 modes on a text of 128 tokens. What it
replaces are two patched runs for each, at plus and minus a small strength, timed at some layers,
sources and modes one after another, and all in one call for each layer, which shares what it can.
"""

import statistics
from itertools import product

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_turns, memory_on_text, reference_tokens
from benchmarks.results import Row

SOURCES = ("true", "current", "previous", "shuffled", "random", "guess", "direction", "constant")
TOKENS = (
    "true",
    "current",
    "previous",
    "shuffled",
    "random",
    "direction",
    "constant",
    "final_guess",
)
MODES = ("add", "interpolate", "correct")


def slopes(bridge: TransformerBridge, tokens: Tensor) -> li.SlopeMap:
    """The map of sources that read no lens."""
    return li.slope_map(bridge, tokens, sources=TOKENS, progress=False)


def patched(bridge: TransformerBridge, tokens: Tensor, found: li.SlopeMap, layer: int) -> None:
    """Two runs for each source and mode at one layer, all in one call."""
    li.teacher_forced_log_probs(
        bridge,
        tokens,
        [
            found.patch(layer, strength=strength, source=source, mode=mode)
            for source, mode, strength in product(found.sources, found.modes, (-1e-2, 1e-2))
        ],
    )


def measure(quick: bool) -> list[Row]:
    """Seconds of a map, and how many of it the patched runs take."""
    length, layers = (16, (28,)) if quick else (128, (3, 14, 25))
    bridge = li.load_model(device="cpu")
    tokens = reference_tokens(bridge, length)
    found = li.slope_map(bridge, tokens, sources=SOURCES, modes=MODES, progress=False)

    def whole() -> None:
        li.slope_map(bridge, tokens, sources=SOURCES, modes=MODES, progress=False)

    def one_run() -> None:
        for layer in layers:
            patch = found.patch(layer, strength=1e-2, source="random", mode="interpolate")
            li.teacher_forced_log_probs(bridge, tokens, patch)

    def one_layer_each() -> None:
        for layer in layers:
            patched(bridge, tokens, found, layer)

    rounds = 1 if quick else 2
    seconds = in_turns(
        {"tokens": lambda: slopes(bridge, tokens), "map": whole, "run": one_run}, rounds
    )
    shared = in_turns({"layers": one_layer_each}, 1)["layers"][0]
    taken = {name: statistics.median(times) for name, times in seconds.items()}
    n_layers = int(bridge.cfg.n_layers)
    runs = 2 * len(SOURCES) * len(MODES) * n_layers * taken["run"] / len(layers)
    token_runs = 2 * len(TOKENS) * n_layers * taken["run"] / len(layers)
    return [
        Row(
            work=f"{len(TOKENS)} sources, mode add, a token of {length}",
            measured=1000 * taken["tokens"] / length,
            unit="ms",
            at_most=14,
        ),
        Row(work="patched runs one by one, to it", measured=token_runs / taken["tokens"], unit="x"),
        Row(
            work=f"{len(SOURCES)} sources, {len(MODES)} modes, with the lens, a token",
            measured=1000 * taken["map"] / length,
            unit="ms",
        ),
        Row(
            work="patched runs one by one, to it",
            measured=runs / taken["map"],
            unit="x",
            at_least=200,
        ),
        Row(
            work="patched runs, all of a layer in one call, to it",
            measured=shared * n_layers / len(layers) / taken["map"],
            unit="x",
        ),
        Row(
            work=f"{4 * length} tokens, beyond the model",
            measured=memory_on_text(slopes, 4 * length),
            unit="MiB",
        ),
    ]


if __name__ == "__main__":
    run(measure)
