"""A network that grows up with a write is trained at more than 60% of a bare loop's speed.

The networks of the experiment `scratch`, at its default size, beside a loop over the plain model
of transformers that does nothing else, on the same batches. A write sends a second stream through
some blocks: it is held to a plain model with as many blocks as both streams run through.
"""

import statistics
from collections.abc import Callable

import torch
from torch import nn
from transformers import GPT2LMHeadModel

from benchmarks.command import run
from benchmarks.common import in_turns, ratio
from benchmarks.results import Row
from lens_interventions._counter_random import random_integers
from lens_interventions.experiments import ScratchSettings, ScratchTraining
from lens_interventions.experiments.design.small_networks.training import (
    Batches,
    Optimization,
    stream_batches,
)
from lens_interventions.experiments.scratch.training import scratch_run

SETTINGS = ScratchSettings(networks=((2, 1), (4, 2)))


def bare_loop(model: GPT2LMHeadModel, batches: Batches, options: Optimization) -> None:
    """Train a model as `scratch` does without a write, and evaluate nothing."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, weight_decay=options.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, options.learning_rate_at)
    for step in range(options.steps):
        tokens, _ = batches(step)
        logits = model(tokens, use_cache=False).logits[:, :-1]
        nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def measure(quick: bool) -> list[Row]:
    """Tokens a second of each network without and with a write, and both to the bare loop."""
    n_steps, rounds = (1, 1) if quick else (10, 5)
    options = SETTINGS.optimization_of(n_steps, SETTINGS.weight_decay)
    stream = random_integers(SETTINGS.vocabulary, 0, torch.arange(100_000))
    batches = stream_batches(stream, SETTINGS.context, SETTINGS.batch, 0)

    def bare(blocks: int) -> Callable[[], None]:
        config = SETTINGS.shape_of(blocks).config()
        return lambda: bare_loop(GPT2LMHeadModel(config), batches, options)

    def ours(blocks: int, entry: int, arm: str) -> Callable[[], None]:
        training, shape = ScratchTraining(blocks, entry, arm, 0), SETTINGS.shape_of(blocks)
        return lambda: scratch_run(training, shape, options, batches).to_the_end(lambda _: [{}])

    rows = []
    for blocks, entry in SETTINGS.networks:
        # The patched stream makes no more than keys and values in the last block.
        run_through = 2 * blocks - 1 - entry
        seconds = in_turns(
            {
                "plain": bare(blocks),
                "plain of both streams": bare(run_through),
                "none": ours(blocks, entry, "none"),
                "true": ours(blocks, entry, "true"),
            },
            rounds,
        )
        n_tokens = n_steps * SETTINGS.batch * SETTINGS.context
        for arm, said, to, of in (
            ("none", "without a write", "plain", blocks),
            ("true", f"written to at block {entry}", "plain of both streams", run_through),
        ):
            rows += [
                Row(
                    work=f"{blocks} blocks, {said}",
                    measured=n_tokens / statistics.median(seconds[arm]),
                    unit="tokens/s",
                ),
                Row(
                    work=f"{blocks} blocks, {said}, to a bare loop over {of} blocks",
                    measured=ratio(seconds, to, arm),
                    unit="x",
                    at_least=0.6,
                ),
            ]
    return rows


if __name__ == "__main__":
    run(measure)
