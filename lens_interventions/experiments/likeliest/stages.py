"""The two stages: variants of the ascent on prompts of their own, then all ways on the others."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.teacher_forcing.log_probs import teacher_forced_log_probs
from ...measures.behaviour import ending_loops, rep_n
from ..design.prompts import prompt_items
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit, unit_kind
from .sequences import (
    GREEDY,
    Found,
    ascent_name,
    beam,
    beam_name,
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
        "seed": settings.seed,
    }
    return [
        Unit("variants", f"{place:03d}", measure_variants, {"prompt": prompt, **common})
        for place, prompt in enumerate(_prompts(bridge, settings)[: settings.choosing])
    ]


def compare(bridge: TransformerBridge, settings: LikeliestSettings, rows: Tables) -> Sequence[Unit]:
    """All ways on the other prompts."""
    common = {
        "variant": chosen_variant(rows["variants"]),
        "lengths": list(settings.lengths),
        "width": settings.width,
        "narrow": list(settings.narrow),
        "more": settings.more,
        "seed": settings.seed,
    }
    return [
        Unit("sequences", f"{place:03d}", measure_sequences, {"prompt": prompt, **common})
        for place, prompt in enumerate(_prompts(bridge, settings)[settings.choosing :])
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
    return _rows(
        bridge,
        prompt,
        (
            (
                variant,
                length,
                searched(
                    bridge, prompt["tokens"], length, variant=variant, budget=budget, seed=seed
                ),
                budget,
            )
            for variant in variants
        ),
    )


@unit_kind("likely sequences")
def measure_sequences(
    bridge: TransformerBridge,
    prompt: Mapping[str, Any],
    variant: str,
    lengths: Sequence[int],
    width: int,
    narrow: Sequence[int],
    more: int,
    seed: int,
) -> pd.DataFrame:
    """A row per way and length: the sequence, its exact log-likelihood, its loops, its price."""
    tokens = prompt["tokens"]

    def ways() -> Iterable[Found]:
        greedy = {}
        for name, length, ids, cost in drawn(bridge, tokens, lengths, width, seed):
            if name == GREEDY:
                greedy[length] = ids
            yield name, length, ids, cost
        for length in lengths:
            budget = width * length
            for beams in (*narrow, width):
                ids = beam(bridge, tokens, length, beams)
                yield beam_name(beams), length, ids, beams * length
            half = beam(bridge, tokens, length, width // 2)
            for start, ids in ((GREEDY, greedy[length]), (beam_name(width // 2), half)):
                paid = length if start == GREEDY else width // 2 * length
                swapped = searched(
                    bridge,
                    tokens,
                    length,
                    variant="swaps",
                    budget=budget - paid,
                    seed=seed,
                    start=ids,
                )
                yield swaps_name(start), length, swapped, budget
            for times in (1, more) if length == lengths[0] and more > 1 else (1,):
                ids = searched(
                    bridge, tokens, length, variant=variant, budget=times * budget, seed=seed
                )
                yield ascent_name(times), length, ids, times * budget

    return _rows(bridge, prompt, ways())


def _prompts(bridge: TransformerBridge, settings: LikeliestSettings) -> list[dict[str, Any]]:
    return prompt_items(bridge, settings.choosing + settings.prompts, settings.seed)


def _rows(
    bridge: TransformerBridge, prompt: Mapping[str, Any], found: Iterable[Found]
) -> pd.DataFrame:
    rows = []
    given = torch.tensor(prompt["tokens"])
    for way, length, ids, cost in found:
        text = torch.cat([given, ids])[None]
        nats = teacher_forced_log_probs(bridge, text, None)[0, -length:]
        (loop,) = ending_loops(ids[None])
        rows.append(
            {
                "prompt": prompt["number"],
                "register": prompt["register"],
                "prompt_text": prompt["text"],
                "way": way,
                "length": length,
                "evaluations": cost,
                "log_likelihood": float(nats.double().sum()),
                "looped": loop is not None,
                "period": -1 if loop is None else loop.period,
                **{f"rep_{n}": float(rep_n(ids[None], n)[0]) for n in (2, 4)},
                "text": "" if bridge.tokenizer is None else bridge.tokenizer.decode(ids.tolist()),
                "tokens": ids.tolist(),
            }
        )
    return pd.DataFrame(rows)
