"""The lens costs little more than what it cannot do without: the forward and the unembedding.

All residual points of the embedded model, with top-5, ranks of the final top-1, the input
and the next token, their log-probabilities, entropy, KL(final ‖ point) and KL(input ‖ point).
"""

import statistics

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import logit_lens as transformer_lens_logit_lens

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_turns, memory_on_text, ratio, reference_tokens
from benchmarks.results import Row
from lens_interventions.model.product import product
from lens_interventions.model.product_trials import is_faster

_ROWS = 128  # of logits at a time in the bare product: the fastest of 62, 124, 155 and 248


@torch.no_grad()
def ours(bridge: TransformerBridge, tokens: Tensor) -> None:
    """`lens_interventions.logit_lens`, everything it gives by default."""
    li.logit_lens(bridge, tokens)


@torch.no_grad()
def floor(bridge: TransformerBridge, tokens: Tensor) -> None:
    """The model's forward, and every point through the fastest bare product to be had here."""
    n_layers = bridge.cfg.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)]
    names.append(f"blocks.{n_layers - 1}.hook_resid_post")
    _, cache = bridge.run_with_cache(
        tokens, names_filter=names, stop_at_layer=n_layers, return_type=None
    )
    weight = bridge.W_U.T
    fast = is_faster(weight)
    out = torch.empty(_ROWS, len(weight))
    for start in range(0, tokens.shape[1], _ROWS):
        for name in names:  # the cache holds each stream under two names
            rows = cache[name][0, start : start + _ROWS]
            product(rows, weight, fast=fast, out=out[: len(rows)])


@torch.no_grad()
def transformer_lens_calls(bridge: TransformerBridge, tokens: Tensor) -> None:
    """TransformerLens's `logit_lens` asked for what it can give: no divergences among it."""
    following = tokens.roll(-1, dims=-1)
    transformer_lens_logit_lens(bridge, tokens, positions=None, top_k=5)
    last = transformer_lens_logit_lens(bridge, tokens, positions=None, top_k=1, layers=[-1])
    for targets in (last.readout.top_ids[0, ..., 0], tokens, following):
        transformer_lens_logit_lens(
            bridge, tokens, positions=None, targets=targets, return_type="log_probs"
        )


@torch.no_grad()
def materialized(bridge: TransformerBridge, tokens: Tensor) -> None:
    """Every logit of every point at once, then the statistics, as one would write it first."""
    logits = transformer_lens_logit_lens(bridge, tokens, positions=None).values
    log_probs = logits.log_softmax(-1)
    logits.topk(5)
    following = tokens.roll(-1, dims=-1)
    for ids in (logits[-1].argmax(-1), tokens, following):
        target = logits.gather(-1, ids.expand(len(logits), *ids.shape)[..., None])
        (logits > target).sum(-1)
    (-log_probs.exp() * log_probs).sum(-1)
    for reference in (log_probs[-1], log_probs[0]):
        (reference.exp() * (reference - log_probs)).sum(-1)


_IMPLEMENTATIONS = {
    "floor": floor,
    "ours": ours,
    "TransformerLens": transformer_lens_calls,
    "materialized": materialized,
}


def _seconds(
    bridge: TransformerBridge, names: tuple[str, ...], length: int, rounds: int
) -> dict[str, list[float]]:
    tokens = reference_tokens(bridge, length)
    return in_turns(
        {name: (lambda name=name: _IMPLEMENTATIONS[name](bridge, tokens)) for name in names}, rounds
    )


def measure(quick: bool) -> list[Row]:
    """Time against the floor and TransformerLens; peak memory, each in a fresh process."""
    # Every logit at once takes 13 GB for 512 tokens, so that is compared on a shorter text.
    short, length, long, rounds = (8, 16, 24, 1) if quick else (128, 512, 2048, 3)
    bridge = li.load_model(device="cpu")
    seconds = _seconds(bridge, ("floor", "ours", "TransformerLens"), length, rounds)
    at_once = _seconds(bridge, ("ours", "materialized"), short, rounds)
    return [
        Row(work=f"{length} tokens", measured=statistics.median(seconds["ours"]), unit="s"),
        Row(
            work="to the forward and the bare product",
            measured=ratio(seconds, "ours", "floor"),
            unit="x",
            at_most=1.3,
        ),
        Row(
            work="TransformerLens's lens, without KL, to it",
            measured=ratio(seconds, "TransformerLens", "ours"),
            unit="x",
            at_least=8,
        ),
        Row(
            work="TransformerLens's lens to the floor",
            measured=ratio(seconds, "TransformerLens", "floor"),
            unit="x",
        ),
        Row(
            work=f"{short} tokens, every logit at once, to it",
            measured=ratio(at_once, "materialized", "ours"),
            unit="x",
        ),
        *(
            Row(
                work=f"{tokens} tokens, {label}beyond the model",
                measured=memory_on_text(_IMPLEMENTATIONS[name], tokens),
                unit="MiB",
                at_most=360 if name == "ours" else None,
            )
            for name, label, tokens in (
                ("ours", "", length),
                ("ours", "", long),
                ("TransformerLens", "TransformerLens, ", length),
                ("materialized", "every logit at once, ", short),
            )
        ),
    ]


if __name__ == "__main__":
    run(measure)
