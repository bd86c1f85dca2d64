"""In modes that read no lens, decoding under a patch is faster than decoding by transformers.

The embedded model, greedy, 32-token prompts, patches with given strengths and a learned
write, against `generate` of transformers on the same weights, which reads the weights once a token,
with attention fused (sdpa); and against TransformerLens's own. The goals are those for AMD's
processors with AVX-512; where MKL's product of many rows is as fast as oneDNN's, as on Intel's,
they are 0.9 and 0.8.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import lens_interventions as li
from benchmarks.command import run
from benchmarks.common import in_turns, ratio, reference_tokens
from benchmarks.results import Row
from lens_interventions.model.embedded import embedded_model
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
    bridge: TransformerBridge,
    *,
    batch: int,
    new_tokens: int,
    rounds: int,
    goal: float | None,
    names: Sequence[str] = (),
) -> list[Row]:
    """Time a token of each implementation, or of those named, to that of transformers."""
    prompts = reference_tokens(bridge, batch * PROMPT).reshape(batch, PROMPT)
    compared = implementations(bridge, prompts, new_tokens)
    seconds = in_turns({name: compared[name] for name in names or compared}, rounds)
    measured = [
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
    ]
    if "learned write" in seconds:
        measured.append(
            Row(
                work=f"batch {batch}: learned write, to the plain patch there",
                measured=ratio(seconds, "learned write", "patched at layer 22"),
                unit="x",
            )
        )
    return measured


def measure(quick: bool) -> list[Row]:
    """One prompt, 32 and 160; ratios to transformers in the same round."""
    bridge = li.load_model(device="cpu")
    if quick:
        return rows(bridge, batch=2, new_tokens=3, rounds=1, goal=None)
    few = (REFERENCE, "without a patch", "patched")
    return [
        *rows(bridge, batch=1, new_tokens=256, rounds=2, goal=0.8),
        *rows(bridge, batch=32, new_tokens=256, rounds=2, goal=0.6, names=few),
        *rows(bridge, batch=160, new_tokens=32, rounds=2, goal=None, names=few),
    ]


if __name__ == "__main__":
    run(measure)
