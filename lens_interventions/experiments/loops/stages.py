"""The two stages: the grid on the selection half, then the chosen cells in full."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...model.points import require_blocks
from ..design.conditions import NO_PATCH, Arm, control_arms, grid
from ..design.prompts import drawn, halves, prompt_items
from ..design.rules import GREEDY, Rule
from ..design.samples import measure_samples
from ..design.sequences import REPORT, SELECTION, beginning, continuation, token_list
from ..design.setting_checks import require_room
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .choice import loops_cell, round_cell
from .cost import measure_arm_losses, measure_rule_loss
from .rounds import measure_noticing, measure_rounds
from .settings import LoopsSettings

# The lens reads about this many points, evenly spread.
_POINTS = 16
# Arms in a unit of losses or rounds. More would lose too much work if a run is stopped.
_ARMS = 12


def search(bridge: TransformerBridge, settings: LoopsSettings, _rows: Tables) -> Sequence[Unit]:
    """The loss, the loops and the rounds of every cell of the grid, on the selection half.

    Raises `ValueError` for a layer that the model does not have, or texts longer than it reads.
    """
    require_blocks(settings.layers, int(bridge.cfg.n_layers))
    everything = prompt_items(bridge, settings.prompts, settings.seed)
    repeated = passage_items(bridge, settings)
    longest = max(len(prompt["tokens"]) for prompt in everything)
    require_room(
        bridge,
        search_tokens=longest + settings.search_tokens,
        new_tokens=longest + settings.new_tokens,
        document_tokens=settings.document_tokens,
        rounds=max(len(each["start"]) + settings.rounds * len(each["said"]) for each in repeated),
    )
    prompts = halves(everything)[SELECTION][: settings.search_prompts]
    documents = halves(document_items(bridge, settings))[SELECTION]
    passages = halves(repeated)[SELECTION]
    cells = grid(settings.layers, settings.strengths, settings.modes)
    units = _samples(
        "search",
        settings,
        [([NO_PATCH], GREEDY, prompts), ([Arm.at(cell) for cell in cells], GREEDY, prompts)],
        settings.search_tokens,
    )
    for name, arms in (
        ("none", [NO_PATCH]),
        *(
            (str(layer), [Arm.at(c) for c in cells if c.layer == layer])
            for layer in settings.layers
        ),
    ):
        units += _arm_units("loss", f"search-{name}", settings, documents, arms)
        units += _arm_units("rounds", f"search-{name}", settings, passages, arms)
    return units


def measure_report_half(
    bridge: TransformerBridge, settings: LoopsSettings, rows: Tables
) -> Sequence[Unit]:
    """The chosen cells with all sources, the other rules, and their costs."""
    prompts = halves(prompt_items(bridge, settings.prompts, settings.seed))
    documents = halves(document_items(bridge, settings))
    passages = halves(passage_items(bridge, settings))
    cell, round_at = loops_cell(rows, settings), round_cell(rows, settings)
    controls = control_arms(cell)
    other_strengths = [
        Arm.at(replace(cell, strength=strength))
        for strength in settings.strengths
        if strength != cell.strength
    ]
    everything = [*prompts[SELECTION], *prompts[REPORT]]
    temperatures = settings.sampled()
    sampled = [
        *((arm, rule) for rule in temperatures for arm in (NO_PATCH, Arm.at(cell))),
        *((NO_PATCH, rule) for rule in settings.rules()),
    ]
    units = _samples(
        "samples",
        settings,
        [
            ([NO_PATCH], GREEDY, everything),
            ([Arm.at(cell), *controls], GREEDY, everything),
            (other_strengths, GREEDY, prompts[REPORT]),
            *(
                ([arm], rule, everything if rule in temperatures else prompts[REPORT])
                for arm, rule in sampled
            ),
        ],
        settings.new_tokens,
    )
    compared = _distinct([*controls, *control_arms(round_at)])
    units += _arm_units("loss", "report-none", settings, documents[REPORT], [NO_PATCH])
    units += _arm_units("rounds", "report-none", settings, passages[REPORT], [NO_PATCH])
    for half in (SELECTION, REPORT):
        # The true source has already been measured on the grid of the selection half.
        true = [Arm.at(cell), *other_strengths, Arm.at(round_at)] if half == REPORT else []
        units += _arm_units("loss", half, settings, documents[half], _distinct([*true, *compared]))
        true = [Arm.at(round_at), Arm.at(cell)] if half == REPORT else []
        arms = _distinct([*true, *control_arms(round_at)])
        units += _arm_units("rounds", half, settings, passages[half], arms)
    for place, (arm, rule) in enumerate(sampled):
        parameters = {
            "documents": documents[REPORT],
            "arm": arm.columns(),
            "rule": rule.columns(),
            "patch": asdict(settings.patch),
        }
        units.append(Unit("loss", f"rule-{place:02d}", measure_rule_loss, parameters))
    every = max(1, int(bridge.cfg.n_layers) // _POINTS)
    units += [
        Unit("noticing", half, measure_noticing, {"passages": passages[half], "every": every})
        for half in (SELECTION, REPORT)
    ]
    return units


STAGES: dict[str, Stage] = {"search": search, "report half": measure_report_half}


def passage_items(bridge: TransformerBridge, settings: LoopsSettings) -> list[dict[str, Any]]:
    """Passages to be repeated; each round begins with a space."""
    start = list(beginning(bridge))
    return [
        {
            **item,
            "start": start,
            "said": continuation(bridge, passage.text, f" {passage.text}"),
            "rounds": settings.rounds,
        }
        for item, passage in drawn(
            materials.passages(at_least=settings.passages), settings.passages, settings.seed, 5
        )
    ]


def document_items(bridge: TransformerBridge, settings: LoopsSettings) -> list[dict[str, Any]]:
    """Beginnings of the prose documents, for the loss."""
    start = beginning(bridge)
    return [
        {
            **item,
            "title": document.title,
            "tokens": [*start, *token_list(bridge, document.text)][: settings.document_tokens],
        }
        for item, document in drawn(materials.prose(), settings.documents, settings.seed, 6)
    ]


def _samples(
    table: str,
    settings: LoopsSettings,
    groups: Sequence[tuple[Sequence[Arm], Rule, Sequence[dict[str, Any]]]],
    new_tokens: int,
) -> list[Unit]:
    """Units of at most `settings.batch` texts, for each group of arms, a rule and prompts.

    A step of decoding reads all weights whatever the batch size, so arms share it.
    """
    found: list[Unit] = []
    for arms, rule, prompts in groups:
        # Sizes are even, because a step takes hardly less time with few texts.
        some_prompts = math.ceil(len(prompts) / math.ceil(len(prompts) / settings.batch))
        some_arms = max(1, settings.batch // len(prompts))
        for start, first in itertools.product(
            range(0, len(arms), some_arms), range(0, len(prompts), some_prompts)
        ):
            parameters = {
                "prompts": list(prompts[first : first + some_prompts]),
                "arms": [arm.columns() for arm in arms[start : start + some_arms]],
                "rule": rule.columns(),
                "patch": asdict(settings.patch),
                "new_tokens": new_tokens,
                "seed": settings.seed,
            }
            found.append(Unit(table, f"{len(found):03d}", measure_samples, parameters))
    return found


_MEASURED = {"loss": (measure_arm_losses, "documents"), "rounds": (measure_rounds, "passages")}


def _arm_units(
    table: str,
    name: str,
    settings: LoopsSettings,
    items: Sequence[dict[str, Any]],
    arms: Sequence[Arm],
) -> list[Unit]:
    """Units of at most `_ARMS` arms, of even sizes, each on all of the items."""
    measure, named = _MEASURED[table]
    some = math.ceil(len(arms) / math.ceil(len(arms) / _ARMS))
    return [
        Unit(
            table,
            f"{name}-{first:02d}",
            measure,
            {
                named: list(items),
                "arms": [arm.columns() for arm in arms[first : first + some]],
                "patch": asdict(settings.patch),
            },
        )
        for first in range(0, len(arms), some)
    ]


def _distinct(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
