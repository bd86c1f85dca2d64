"""One map of slopes takes far less than the patched runs that say the same.

The embedded model, all 30 layers, 8 sources and 3 modes on a text of 128 tokens: 720 cells.
What the map replaces is a patched run for each, through the two streams, at one small strength.
Such runs are timed at six layers, evenly spaced, for cells that read no lens and for cells that do
(mode correct, and the source "guess"), and multiplied by how many cells there are of either kind.
All cells of a layer in one call share the blocks below it and the lens; so called, they are timed
at two layers and multiplied by fifteen.
"""

import statistics
from collections.abc import Sequence
from itertools import product

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import forward, in_turns, memory_on_text, reference_tokens
from benchmarks.results import Row

PLAIN = ("true", "current", "previous", "shuffled", "random", "direction", "average")
SOURCES, MODES = (*PLAIN, "guess"), ("add", "interpolate", "correct")


def plain_map(bridge: TransformerBridge, tokens: Tensor) -> li.SlopeMap:
    """The map of all cells that read no lens."""
    return li.slope_map(bridge, tokens, sources=PLAIN, modes=MODES[:2], progress=False)


def measure(quick: bool) -> list[Row]:
    """Maps and patched runs in plain forwards, and how many maps the patched runs take."""
    length, alone, together = 128, (2, 7, 12, 17, 22, 27), (7, 22)
    if quick:
        length, alone, together = 16, (28,), (28,)
    bridge = li.load_model(device="cpu")
    tokens = reference_tokens(bridge, length)
    n_layers = int(bridge.cfg.n_layers)

    def patches(layer: int, sources: Sequence[str], modes: Sequence[str]) -> list:
        return [
            li.NextTokenPatch(layer=layer, strength=1e-2, source=source, mode=mode, scale="norm")
            for source, mode in product(sources, modes)
        ]

    def whole_map() -> None:
        li.slope_map(bridge, tokens, sources=SOURCES, modes=MODES, progress=False)

    def one_by_one(mode: str) -> None:
        for layer in alone:
            (patch,) = patches(layer, ["random"], [mode])
            li.teacher_forced_log_probs(bridge, tokens, patch)

    def layer_in_one_call() -> None:
        for layer in together:
            li.teacher_forced_log_probs(bridge, tokens, patches(layer, SOURCES, MODES))

    seconds = in_turns(
        {
            "forward": lambda: forward(bridge, tokens),
            "plain map": lambda: plain_map(bridge, tokens),
            "map": whole_map,
            "plain": lambda: one_by_one("interpolate"),
            "lens": lambda: one_by_one("correct"),
        },
        1 if quick else 2,
    )
    seconds |= in_turns({"calls": layer_in_one_call}, 1)
    taken = {name: statistics.median(times) for name, times in seconds.items()}
    run_of = {name: taken[name] / len(alone) for name in ("plain", "lens")}
    n_plain = len(PLAIN) * 2 * n_layers
    n_lens = len(SOURCES) * len(MODES) * n_layers - n_plain
    plain_runs, lens_runs = n_plain * run_of["plain"], n_lens * run_of["lens"]
    sampled = f"from {len(alone)} timed"
    return [
        Row(
            work=f"map of {n_plain} cells without the lens, to a plain forward",
            measured=taken["plain map"] / taken["forward"],
            unit="x",
        ),
        Row(
            work=f"map of {n_plain + n_lens} cells, to a plain forward",
            measured=taken["map"] / taken["forward"],
            unit="x",
        ),
        Row(
            work="a patched run, to a plain forward",
            measured=run_of["plain"] / taken["forward"],
            unit="x",
        ),
        Row(
            work="one that reads the lens, to a plain forward",
            measured=run_of["lens"] / taken["forward"],
            unit="x",
        ),
        Row(
            work=f"{n_plain} runs ({sampled}), to the map without the lens",
            measured=plain_runs / taken["plain map"],
            unit="x",
        ),
        Row(
            work=f"{n_plain + n_lens} runs ({sampled} of either kind), to the map",
            measured=(plain_runs + lens_runs) / taken["map"],
            unit="x",
            at_least=200,
        ),
        Row(
            work=f"all runs, a call for each layer (from {len(together)} timed), to the map",
            measured=taken["calls"] * n_layers / len(together) / taken["map"],
            unit="x",
        ),
        Row(
            work=f"{4 * length} tokens, beyond the model",
            measured=memory_on_text(plain_map, 4 * length),
            unit="MiB",
        ),
    ]


if __name__ == "__main__":
    run(measure)
