"""Knowing the next token costs little: teacher forcing in one pass, sweeps that share their work.

The embedded default model, the patch at layer 24 of 30, against the plain forward of the bridge
and against what one would write first: a hook, and every position's text run anew.
"""

import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
import typer
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks import generation
from benchmarks.common import in_turns, peak_memory, prose_tokens, ratio, report

LAYER = 24
PATCH = li.NextTokenPatch(layer=LAYER, strength=0.1)
SWEEP = [li.NextTokenPatch(layer=LAYER, strength=strength / 8) for strength in range(1, 9)]
CORRECTIONS = [
    li.NextTokenPatch(layer=LAYER, strength=strength / 8, mode="correct")
    for strength in range(1, 9)
]


def log_probs(
    bridge: TransformerBridge, tokens: Tensor, patch: li.NextTokenPatch | list[li.NextTokenPatch]
) -> Callable[[], object]:
    """Teacher forcing with one patch or several."""
    return lambda: li.teacher_forced_log_probs(bridge, tokens, patch)


@torch.no_grad()
def forward(bridge: TransformerBridge, tokens: Tensor) -> None:
    """The model without a patch: its logits."""
    bridge(tokens)


@torch.no_grad()
def loop(bridge: TransformerBridge, tokens: Tensor) -> None:
    """A run on the text up to each position, with hooks on the positions before it."""
    for stop in range(1, tokens.shape[1] + 1):
        text = tokens[:, :stop]
        bridge.run_with_hooks(text, fwd_hooks=PATCH.fwd_hooks(bridge, text))


def row(work: str, value: float, unit: str, goal: str) -> dict[str, object]:
    """One line of the table."""
    return {"work": work, "measured": value, "unit": unit, "goal": goal}


def _memory(length: int) -> float:
    bridge = li.load_model(device="cpu")
    short, tokens = prose_tokens(bridge, 8), prose_tokens(bridge, length)
    log_probs(bridge, short, PATCH)()
    return peak_memory(log_probs(bridge, tokens, PATCH))


def teacher_forcing(bridge: TransformerBridge, rounds: int) -> list[dict[str, object]]:
    """Time against the plain forward, the loop and separate calls; memory in a fresh process."""
    tokens, short = prose_tokens(bridge, 512), prose_tokens(bridge, 256)
    seconds = in_turns(
        {
            "forward": lambda: forward(bridge, tokens),
            "patched": log_probs(bridge, tokens, PATCH),
            "sweep": log_probs(bridge, tokens, SWEEP),
            "corrected": log_probs(bridge, tokens, CORRECTIONS[0]),
            "corrections": log_probs(bridge, tokens, CORRECTIONS),
        },
        rounds,
    )
    # The loop is too long to be run in turns, or twice.
    alone = min(in_turns({"patched": log_probs(bridge, short, PATCH)}, rounds)["patched"])
    start = time.perf_counter()
    loop(bridge, short)
    looped = time.perf_counter() - start
    with get_context("spawn").Pool(1) as pool:
        memory = pool.apply(_memory, (2048,))
    return [
        row("512 tokens, against forward", ratio(seconds, "patched", "forward"), "x", "<= 1.5"),
        row("the same, mode correct", ratio(seconds, "corrected", "forward"), "x", ""),
        row("256 tokens, loop against it", looped / alone, "x", ">= 100"),
        row("8 strengths, against 8 calls", ratio(seconds, "sweep", "patched") / 8, "x", "<= 0.6"),
        row(
            "the same, mode correct", ratio(seconds, "corrections", "corrected") / 8, "x", "<= 0.6"
        ),
        row("2048 tokens, beyond the model", memory / 1024, "GiB", "< 1.5"),
    ]


def effect_map(bridge: TransformerBridge) -> list[dict[str, object]]:
    """Seconds for all layers and 50 positions."""
    tokens = prose_tokens(bridge, 51)
    seconds = in_turns(
        {
            "map": lambda: li.effect_map(
                bridge, tokens, lambda logits: logits[0, -1].log_softmax(-1)[0], patch=PATCH
            )
        },
        1,
    )
    return [row("effect map, 30 layers x 50 positions", seconds["map"][0], "s", "<= 60")]


def decoding(bridge: TransformerBridge, rounds: int) -> list[dict[str, object]]:
    """Time a token against transformers' `generate`; `benchmarks.generation` says more."""
    others = ("TransformerLens", "without a patch", "patched, correct")
    return [
        row(f"patched decoding, batch {batch}", line["to transformers"], "x", goal)
        for batch, new_tokens, goal in ((1, 64, "<= 1.25"), (32, 24, "<= 1.5"))
        for line in generation.rows(
            bridge, batch=batch, new_tokens=new_tokens, rounds=rounds, skip=others
        )
        if line["implementation"] == "patched"
    ]


def main(rounds: int = 5, out: Path | None = None) -> None:
    """Print what was measured beside the goals."""
    bridge = li.load_model(device="cpu")
    table = [*teacher_forcing(bridge, rounds), *decoding(bridge, rounds), *effect_map(bridge)]
    report(f"The intervention at layer {LAYER}", table, out)


if __name__ == "__main__":
    typer.run(main)
