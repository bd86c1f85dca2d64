"""What all benchmarks share: timing in turns, peak memory, one table, one JSON file."""

import json
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from pydoc_data import topics

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


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

    Meaningful in a process that has not run anything larger before: memory that an earlier call
    gave back to the allocator is not counted again.
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


def prose_tokens(bridge: TransformerBridge, length: int) -> Tensor:
    """`[1, length]` ids of the Python language reference, which every CPython carries."""
    text = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))
    return bridge.to_tokens(text[: 12 * length], truncate=False)[:, :length]


def report(title: str, rows: Sequence[Mapping[str, object]], out: Path | None) -> None:
    """Print the rows as a table under the machine's description; write both as JSON."""
    machine = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "transformer_lens")},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    table = Table(title=title, caption=", ".join(f"{k} {v}" for k, v in machine.items() if v))
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)
    if out is not None:
        out.write_text(json.dumps({"title": title, "machine": machine, "rows": rows}, indent=1))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
