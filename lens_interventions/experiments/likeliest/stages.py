"""The two stages: variants of the ascent on some prompts, then all ways on the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...measures.behaviour import ending_loop, rep_n
from ..design.prompts import prompt_items, prompt_seed
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .sequences import (
    GREEDY,
    SAMPLE,
    ascent_name,
    beam,
    beam_name,
    best_name,
    drawn,
    searched,
    swaps_name,
)
from .settings import LikeliestSettings


def choose(bridge: TransformerBridge, settings: LikeliestSettings, _rows: Tables) -> Sequence[Unit]:
    """Every variant of the ascent on the prompts that choose, at the shortest length."""
    common = {
        "variants": list(settings.variants),
        "length": settings.lengths[0],
        "width": settings.width,
    }
    return [
        Unit(
            "variants",
            f"{place:03d}",
            measure_variants,
            {
                "prompt": prompt,
                "seed": prompt_seed(settings.seed, prompt, settings.width),
                **common,
            },
        )
        for place, prompt in enumerate(_prompts(bridge, settings)[: settings.choosing])
    ]


def compare(bridge: TransformerBridge, settings: LikeliestSettings, rows: Tables) -> Sequence[Unit]:
    """All ways on the other prompts, with a unit for each prompt and length."""
    common = {
        "variant": chosen_variant(rows["variants"]),
        "width": settings.width,
        "narrow": list(settings.narrow),
    }
    return [
        Unit(
            "sequences",
            f"{place:03d}-{length:03d}",
            measure_sequences,
            {
                "prompt": prompt,
                "length": length,
                "more": settings.more if length == settings.lengths[0] else 1,
                "seed": prompt_seed(settings.seed, prompt, settings.width),
                **common,
            },
        )
        for place, prompt in enumerate(_prompts(bridge, settings)[settings.choosing :])
        for length in settings.lengths
    ]


STAGES: dict[str, Stage] = {"variants of the ascent": choose, "all ways": compare}


def chosen_variant(variants: pd.DataFrame) -> str:
    """The variant with the highest mean log-likelihood."""
    return str(variants.groupby("way")["log_likelihood"].mean().idxmax())


@unit_kind("variants of the ascent to likely sequences")
def measure_variants(
    bridge: TransformerBridge,
    prompt: Mapping[str, Any],
    variants: Sequence[str],
    length: int,
    width: int,
    seed: int,
) -> pd.DataFrame:
    """A row per variant; columns as in `measure_sequences`."""
    budget = width * length
    return pd.DataFrame(
        [
            _row(
                bridge,
                prompt,
                variant,
                searched(
                    bridge, prompt["tokens"], length, variant=variant, budget=budget, seed=seed
                ),
                budget,
            )
            for variant in variants
        ]
    )


@unit_kind("likely sequences")
def measure_sequences(
    bridge: TransformerBridge,
    prompt: Mapping[str, Any],
    length: int,
    variant: str,
    width: int,
    narrow: Sequence[int],
    more: int,
    seed: int,
) -> pd.DataFrame:
    """A row per way: the sequence, its exact log-likelihood, its loops and its cost."""
    tokens, budget, half = prompt["tokens"], width * length, width // 2
    ids = drawn(bridge, tokens, length, width, seed)
    price = {GREEDY: length, SAMPLE: length, best_name(width): budget}
    for beams in (*narrow, half, width):
        ids[beam_name(beams)] = beam(bridge, tokens, length, beams)
        price[beam_name(beams)] = beams * length
    for start in (GREEDY, beam_name(half)):
        ids[swaps_name(start)] = searched(
            bridge,
            tokens,
            length,
            variant="swaps",
            budget=budget - price[start],
            seed=seed,
            start=ids[start],
        )
        price[swaps_name(start)] = budget
    for times in sorted({1, more}):
        ids[ascent_name(times)] = searched(
            bridge, tokens, length, variant=variant, budget=times * budget, seed=seed
        )
        price[ascent_name(times)] = times * budget
    return pd.DataFrame([_row(bridge, prompt, way, ids[way], price[way]) for way in ids])


def _prompts(bridge: TransformerBridge, settings: LikeliestSettings) -> list[dict[str, Any]]:
    return prompt_items(bridge, settings.choosing + settings.prompts, settings.seed)


def _row(
    bridge: TransformerBridge,
    prompt: Mapping[str, Any],
    way: str,
    ids: Int[Tensor, " new"],
    evaluations: int,
) -> dict[str, Any]:
    ids = ids.cpu()
    text = torch.cat([torch.tensor(prompt["tokens"]), ids])[None]
    nats = teacher_forced_log_probs(bridge, text, None)[0, -len(ids) :]
    loop = ending_loop(ids)
    return {
        "prompt": prompt["number"],
        "register": prompt["register"],
        "prompt_text": prompt["text"],
        "way": way,
        "length": len(ids),
        "evaluations": evaluations,
        "log_likelihood": float(nats.cpu().double().sum()),
        "looped": loop is not None,
        "period": -1 if loop is None else loop.period,
        **{f"rep_{n}": float(rep_n(ids[None], n)[0]) for n in (2, 4)},
        "text": "" if bridge.tokenizer is None else bridge.tokenizer.decode(ids.tolist()),
        "tokens": ids.tolist(),
    }
