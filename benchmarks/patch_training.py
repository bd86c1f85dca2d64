"""A patch is trained in little memory, and a control costs less than the first training.

The embedded default model, 8 windows of 256 tokens a step, the write at layer 22 of 30 and at the
very bottom, where all blocks are differentiated through.
"""

import time
from multiprocessing import get_context
from pathlib import Path

import typer
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.common import peak_memory, report
from lens_interventions.materials import python_reference

OPTIONS = li.TrainingOptions(window=256, batch_size=8, held_out_windows=1, evaluate_every=1000)


def train(
    bridge: TransformerBridge, layer: int, source: str, steps: int, store: li.ResidualStore
) -> None:
    """A few steps on the Python reference."""
    texts = [document.text for document in python_reference()]
    li.train_patch(
        bridge,
        texts,
        layer=layer,
        source=source,
        steps=steps,
        options=OPTIONS,
        store=store,
        progress=False,
    )


def measure(layer: int, steps: int) -> tuple[float, float, float]:
    """Peak GiB beyond the model, and seconds a step the first time and with the store filled."""
    bridge = li.load_model(device="cpu")
    store, seconds = li.ResidualStore(), []

    def first() -> None:
        start = time.perf_counter()
        train(bridge, layer, "true", steps, store)
        seconds.append((time.perf_counter() - start) / steps)

    memory = peak_memory(first)
    start = time.perf_counter()
    train(bridge, layer, "current", steps, store)
    seconds.append((time.perf_counter() - start) / steps)
    return memory / 1024, *seconds


def main(steps: int = 4, out: Path | None = None) -> None:
    """Print what was measured beside the goals."""
    rows = []
    for layer in (22, 0):
        with get_context("spawn").Pool(1) as pool:
            memory, first, again = pool.apply(measure, (layer, steps))
        rows += [
            {"work": f"layer {layer}: {name}", "measured": value, "unit": unit, "goal": goal}
            for name, value, unit, goal in (
                ("memory beyond the model", memory, "GiB", "< 6"),
                ("a step, first source", first, "s", ""),
                ("a step, a control in the same store", again, "s", ""),
            )
        ]
    report("Training a patch, 8 windows of 256 tokens", rows, out)


if __name__ == "__main__":
    typer.run(main)
