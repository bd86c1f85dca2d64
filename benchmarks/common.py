"""What all benchmarks share: timing in turns, peak memory, the text they run on."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import psutil
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li

T = TypeVar("T")


def in_turns(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every function, `rounds` times each, in turns after one warm-up.

    A machine's speed drifts; functions timed in turns drift together, so ratios hold.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str) -> float:
    """Median over rounds of the ratio of two functions' times in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def peak_memory(function: Callable[[], object]) -> float:
    """MiB of resident memory beyond what was there before, at the highest point of a call.

    Meaningful in a process that has not run anything larger before, see `in_fresh_process`: memory
    that an earlier call gave back to the allocator is not counted again.
    """
    process = psutil.Process()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return (peak - before) / 2**20


def in_fresh_process(function: Callable[..., T], *args: object) -> T:
    """What a function of a module returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def memory_on_text(function: Callable[[TransformerBridge, Tensor], object], length: int) -> float:
    """`peak_memory` of a module's function of the embedded model and a text, in a fresh process."""
    return in_fresh_process(_memory, function, length)


def _memory(function: Callable[[TransformerBridge, Tensor], object], length: int) -> float:
    bridge = li.load_model(device="cpu")
    short, tokens = reference_tokens(bridge, 8), reference_tokens(bridge, length)
    function(bridge, short)
    return peak_memory(lambda: function(bridge, tokens))


@torch.no_grad()
def forward(bridge: TransformerBridge, tokens: Tensor) -> None:
    """The model without a patch: its logits."""
    bridge(tokens)


def reference_tokens(bridge: TransformerBridge, length: int) -> Tensor:
    """`[1, length]` ids of the Python language reference."""
    # Topics end in a line break, which documents are without.
    text = "\n\n\n".join(document.text for document in li.materials.python_reference())
    return bridge.to_tokens(text[: 12 * length], truncate=False)[:, :length]
