"""Prompts and other items of text, divided between the selection half and the report half."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ..._counter_random import SEEDS_APART
from .sequences import REPORT, SELECTION, beginning, token_list


def prompt_items(bridge: TransformerBridge, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` prompts as parameters of units, every register in both halves.

    Raises `ValueError` if there are fewer on this machine.
    """
    start = beginning(bridge)
    return [
        {**item, "text": prompt.text, "tokens": [*start, *token_list(bridge, prompt.text)]}
        for item, prompt in drawn(materials.prompts(at_least=n), n, seed, 4)
    ]


def prompt_seed(seed: int, prompt: Mapping[str, Any], samples: int = 1) -> int:
    """The seed of the first of a prompt's `samples`, in a run with `seed`; the others follow it.

    A draw is a function of the seed and the position, so prompts that shared a seed would share
    their draws, and would not be independent.
    """
    return seed * SEEDS_APART + int(prompt["number"]) * samples


def halves(items: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Split items by their half."""
    items = list(items)
    return {half: [i for i in items if i["half"] == half] for half in (SELECTION, REPORT)}


def drawn(items: Sequence[Any], n: int, seed: int, stream: int) -> list[tuple[dict[str, Any], Any]]:
    """Draw `n` items in a random order, every register for both halves.

    Each comes with its number, half and register.
    """
    rng = np.random.default_rng([seed, stream])
    last: dict[str, str] = {}
    sizes = {SELECTION: 0, REPORT: 0}
    found = []
    for index in rng.permutation(len(items))[:n]:
        item = items[index]
        # The items of a register go first to the smaller half, and then alternate.
        half = min(sizes, key=sizes.__getitem__)
        if item.register in last:
            half = REPORT if last[item.register] == SELECTION else SELECTION
        last[item.register] = half
        sizes[half] += 1
        found.append(({"number": int(index), "half": half, "register": item.register}, item))
    return found
