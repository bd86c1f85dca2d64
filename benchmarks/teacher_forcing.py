"""Knowing the next token costs little: a whole text in one pass, and sweeps that share their work.

The embedded model, the patch at layer 24 of 30, against the plain forward of the bridge
and against what one would write first: a hook, and every position's text run anew.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import forward, in_turns, memory_on_text, ratio, reference_tokens
from benchmarks.results import Row

LAYER = 24
END = 8
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
def loop(bridge: TransformerBridge, tokens: Tensor) -> None:
    """A run on the text up to each position, with hooks on the positions before it."""
    for stop in range(1, tokens.shape[1] + 1):
        text = tokens[:, :stop]
        bridge.run_with_hooks(text, fwd_hooks=PATCH.fwd_hooks(bridge, text))


def end(bridge: TransformerBridge, tokens: Tensor) -> Callable[[], object]:
    """Teacher forcing that reads the last tokens alone."""
    where = torch.zeros_like(tokens[:, 1:], dtype=torch.bool)
    where[:, -END:] = True
    return lambda: li.teacher_forced_log_probs(bridge, tokens, PATCH, where=where)


def patched(bridge: TransformerBridge, tokens: Tensor) -> None:
    """Teacher forcing with one patch."""
    log_probs(bridge, tokens, PATCH)()


def measure(quick: bool) -> list[Row]:
    """Time against the plain forward, the loop and separate calls; memory in a fresh process."""
    looped, length, long, rounds = (8, 16, 24, 1) if quick else (256, 512, 2048, 5)
    bridge = li.load_model(device="cpu")
    tokens, short = reference_tokens(bridge, length), reference_tokens(bridge, looped)
    seconds = in_turns(
        {
            "forward": lambda: forward(bridge, tokens),
            "patched": log_probs(bridge, tokens, PATCH),
            "sweep": log_probs(bridge, tokens, SWEEP),
            "end": end(bridge, tokens),
            "corrected": log_probs(bridge, tokens, CORRECTIONS[0]),
            "corrections": log_probs(bridge, tokens, CORRECTIONS),
        },
        rounds,
    )
    # The loop is too long to be run in turns, or twice, so a change of the machine's speed is seen
    # before and after it.
    turn = {"patched": log_probs(bridge, short, PATCH)}
    before = in_turns(turn, rounds)["patched"]
    start = time.perf_counter()
    loop(bridge, short)
    looping = time.perf_counter() - start
    alone = statistics.median(before + in_turns(turn, rounds)["patched"])
    return [
        Row(
            work=f"{length} tokens, to the plain forward",
            measured=ratio(seconds, "patched", "forward"),
            unit="x",
            at_most=1.5,
        ),
        Row(
            work=f"the last {END} tokens alone, to all of them",
            measured=ratio(seconds, "end", "patched"),
            unit="x",
        ),
        Row(
            work="mode correct, to the plain forward",
            measured=ratio(seconds, "corrected", "forward"),
            unit="x",
        ),
        Row(
            work=f"{looped} tokens, the loop to it",
            measured=looping / alone,
            unit="x",
            at_least=100,
        ),
        Row(
            work="8 strengths, to 8 calls",
            measured=ratio(seconds, "sweep", "patched") / 8,
            unit="x",
            at_most=0.6,
        ),
        Row(
            work="8 strengths, mode correct, to 8 calls",
            measured=ratio(seconds, "corrections", "corrected") / 8,
            unit="x",
            at_most=0.6,
        ),
        Row(
            work=f"{long} tokens, beyond the model",
            measured=memory_on_text(patched, long) / 1024,
            unit="GiB",
            at_most=1.5,
        ),
    ]


if __name__ == "__main__":
    run(measure)
