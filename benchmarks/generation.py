"""Decoding under a patch costs little more than decoding.

The embedded default model, greedy, against `generate` of transformers on the same weights, which
reads the weights once a token, with attention fused (sdpa); and against TransformerLens's own.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import lens_interventions as li
from benchmarks.common import in_turns, prose_tokens, ratio, report
from lens_interventions._embedded import embedded_model

PATCH = li.NextTokenPatch(layer=24, strength=0.1)
# Every block runs on two positions a token, as it would without splitting at the patched layer.
LOWEST = li.NextTokenPatch(layer=0, strength=0.1)
CORRECT = li.NextTokenPatch(layer=24, strength=0.1, mode="correct")
REFERENCE = "transformers"


def implementations(
    bridge: TransformerBridge, prompts: Tensor, new_tokens: int
) -> dict[str, Callable[[], object]]:
    """What is compared, by name, each making `new_tokens` tokens for every prompt."""
    model = AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    mask = torch.ones_like(prompts)
    options = {"max_new_tokens": new_tokens, "stop_at_eos": False}
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
        "without a patch": lambda: li.generate(bridge, prompts, **options),
        "patched": lambda: li.generate(bridge, prompts, PATCH, **options),
        "patched at layer 0": lambda: li.generate(bridge, prompts, LOWEST, **options),
        "patched, correct": lambda: li.generate(bridge, prompts, CORRECT, **options),
    }


def rows(
    bridge: TransformerBridge,
    *,
    batch: int,
    new_tokens: int,
    prompt: int = 32,
    rounds: int = 5,
    skip: tuple[str, ...] = (),
) -> list[dict[str, object]]:
    """A row for each implementation: milliseconds a step, and the ratio to transformers."""
    prompts = prose_tokens(bridge, batch * prompt).reshape(batch, prompt)
    functions = {
        name: function
        for name, function in implementations(bridge, prompts, new_tokens).items()
        if name not in skip
    }
    seconds = in_turns(functions, rounds)
    return [
        {
            "batch": batch,
            "implementation": name,
            "ms a step": 1000 * min(seconds[name]) / new_tokens,
            "to transformers": ratio(seconds, name, REFERENCE),
        }
        for name in functions
    ]


def main(
    rounds: int = 5,
    skip: Annotated[list[str] | None, typer.Option(help="implementations to leave out")] = None,
    out: Path | None = None,
) -> None:
    """Print time a step of each implementation, for one prompt and for 32."""
    bridge = li.load_model(device="cpu")
    table = [
        row
        for batch, new_tokens in ((1, 64), (32, 24))
        for row in rows(
            bridge, batch=batch, new_tokens=new_tokens, rounds=rounds, skip=tuple(skip or ())
        )
    ]
    report("Greedy decoding, 32-token prompts; 64 new tokens for one, 24 for 32", table, out)


if __name__ == "__main__":
    typer.run(main)
