"""Decoding under a patch, given or learned, costs little more than decoding.

The embedded default model, greedy, 32-token prompts, against `generate` of transformers on the same
weights, which reads the weights once a token, with attention fused (sdpa); and against
TransformerLens's own.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_turns, ratio, reference_tokens
from benchmarks.results import Row
from lens_interventions.model._embedded import embedded_model
from lens_interventions.model.fingerprint import fingerprint

PROMPT = 32
LEARNED_LAYER, RANK = 22, 64
REFERENCE = "transformers"
PATCHES: Mapping[str, li.NextTokenPatch | None] = {
    "without a patch": None,
    "patched": li.NextTokenPatch(layer=24, strength=0.1),
    "patched, mode correct": li.NextTokenPatch(layer=24, strength=0.1, mode="correct"),
    # Every block runs on two positions a token, as it would without splitting at the patched layer.
    "patched at layer 0": li.NextTokenPatch(layer=0, strength=0.1),
    "patched at layer 22": li.NextTokenPatch(layer=LEARNED_LAYER, strength=0.1, mode="add"),
}


def learned_patch(bridge: TransformerBridge) -> li.NextTokenPatch:
    """A write of the size that `train_patch` learns by default, of random weights."""
    generator = torch.Generator().manual_seed(0)
    d_model = int(bridge.cfg.d_model)

    def draw(*shape: int) -> Tensor:
        return 0.01 * torch.randn(1, *shape, generator=generator)

    return li.LearnedWrite(
        layers=(LEARNED_LAYER,),
        down=draw(d_model, RANK),
        up=draw(RANK, d_model),
        bias=draw(d_model),
        trained_with="true",
        source="true",
        embedding="W_E",
        scale="raw",
        first_position=1,
        fingerprint=fingerprint(bridge),
    ).patch()


def implementations(
    bridge: TransformerBridge, prompts: Tensor, new_tokens: int
) -> dict[str, Callable[[], object]]:
    """What is compared, by name, each making `new_tokens` tokens for every prompt."""
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    mask = torch.ones_like(prompts)
    options = {"max_new_tokens": new_tokens, "stop_at_eos": False}
    patches = {**PATCHES, "learned write": learned_patch(bridge)}
    return {
        REFERENCE: lambda: model.generate(
            prompts,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        ),
        "TransformerLens": lambda: bridge.generate(
            prompts, do_sample=False, verbose=False, **options
        ),
        **{
            name: (lambda patch=patch: li.generate(bridge, prompts, patch, **options))
            for name, patch in patches.items()
        },
    }


def rows(
    bridge: TransformerBridge, *, batch: int, new_tokens: int, rounds: int, goal: float
) -> list[Row]:
    """Time a token of each implementation to that of transformers."""
    prompts = reference_tokens(bridge, batch * PROMPT).reshape(batch, PROMPT)
    seconds = in_turns(implementations(bridge, prompts, new_tokens), rounds)
    return [
        Row(
            work=f"batch {batch}: {REFERENCE}, a step",
            measured=1000 * min(seconds[REFERENCE]) / new_tokens,
            unit="ms",
        ),
        *(
            Row(
                work=f"batch {batch}: {name}, to {REFERENCE}",
                measured=ratio(seconds, name, REFERENCE),
                unit="x",
                at_most=goal if name == "patched" else None,
            )
            for name in seconds
            if name != REFERENCE
        ),
        Row(
            work=f"batch {batch}: learned write, to the plain patch there",
            measured=ratio(seconds, "learned write", "patched at layer 22"),
            unit="x",
        ),
    ]


def measure(quick: bool) -> list[Row]:
    """One prompt and 32; ratios to transformers in the same round."""
    bridge = li.load_model(device="cpu")
    if quick:
        return rows(bridge, batch=2, new_tokens=3, rounds=1, goal=1.5)
    return [
        *rows(bridge, batch=1, new_tokens=64, rounds=5, goal=1.25),
        *rows(bridge, batch=32, new_tokens=24, rounds=5, goal=1.5),
    ]


if __name__ == "__main__":
    run(measure)
