"""A patch is trained in little memory, and a control costs less than the first training.

The embedded model, 8 windows of 256 tokens a step, the write at layer 22 of 30 and at the
very bottom, where all blocks are differentiated through.
"""

import time

from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_fresh_process, peak_memory
from benchmarks.results import Row
from lens_interventions.materials import python_reference


def train(
    bridge: TransformerBridge,
    *,
    layer: int,
    source: str,
    steps: int,
    windows: tuple[int, int],
    store: li.ResidualStore,
) -> float:
    """Seconds of a few steps on the Python reference, each of some windows of some tokens."""
    batch_size, window = windows
    options = li.TrainingOptions(
        window=window, batch_size=batch_size, held_out_windows=1, evaluate_every=1000
    )
    texts = [document.text for document in python_reference()]
    start = time.perf_counter()
    li.train_patch(
        bridge,
        texts,
        layer=layer,
        source=source,
        steps=steps,
        options=options,
        store=store,
        progress=False,
    )
    return time.perf_counter() - start


def _at(layer: int, steps: int, windows: tuple[int, int]) -> tuple[float, float, float]:
    bridge = li.load_model(device="cpu")
    store, seconds = li.ResidualStore(), []

    def first() -> None:
        seconds.append(
            train(bridge, layer=layer, source="true", steps=steps, windows=windows, store=store)
        )

    memory = peak_memory(first)
    again = train(bridge, layer=layer, source="current", steps=steps, windows=windows, store=store)
    return memory / 1024, seconds[0], again


def measure(quick: bool) -> list[Row]:
    """Memory and time of the first source, and of a control with the store filled."""
    steps, windows = (1, (2, 16)) if quick else (4, (8, 256))
    rows = []
    for layer in (22, 0):
        memory, first, again = in_fresh_process(_at, layer, steps, windows)
        rows += [
            Row(
                work=f"layer {layer}: memory beyond the model",
                measured=memory,
                unit="GiB",
                at_most=6,
            ),
            Row(work=f"layer {layer}: {steps} steps and what they need", measured=first, unit="s"),
            Row(
                work=f"layer {layer}: the same for a control, to the first",
                measured=again / first,
                unit="x",
                # At the bottom there is nothing below the write that could be kept.
                at_most=1 if layer else None,
            ),
        ]
    return rows


if __name__ == "__main__":
    run(measure)
