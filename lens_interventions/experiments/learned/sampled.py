"""Free running under every write: the loops of greedy samples, and free copies."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.generation.generate import generate
from ...intervention.generation.sample_texts import TEXTS_AT_ONCE
from ..design.conditions import NO_PATCH, Arm
from ..design.copy_rows import rows_of, table_of
from ..design.prompts import halves, prompt_items
from ..design.rules import GREEDY
from ..design.samples import measure_samples, sample_totals, shown_samples
from ..design.sequences import REPORT, SELECTION, TokenSequence
from ..design.setting_checks import require_room
from ..engine.json_values import Values, from_values
from ..engine.results import Tables
from ..engine.work_units import Unit, unit_kind
from .evaluation import NO_SEED, conditions, named_by_seed
from .settings import LearnedSettings

SAMPLES, COPIES = "samples", "copies"

# How many prompts have samples that are kept for readers.
_SHOWN = 8


@unit_kind("samples under writes")
def measure_loops(
    bridge: TransformerBridge, writes: Values, prompts: Sequence[Values], new_tokens: int
) -> pd.DataFrame:
    """Greedy samples and their loops under each write, or without a patch if there is no write.

    Rows as `measure_samples` makes them, with the seed of the training in `seed`.
    """
    patches, arms, named = conditions(writes)
    rows = measure_samples(
        bridge, prompts, arms or [NO_PATCH.columns()], GREEDY.columns(), patches, new_tokens, 0
    )
    return named_by_seed(rows, named)


@unit_kind("free copies under writes")
def measure_copies(
    bridge: TransformerBridge, writes: Values, sequences: Sequence[Values]
) -> pd.DataFrame:
    """Free-running copies of random tokens.

    The first half of the second copy is given, and the rest is decoded greedily. The measure
    "right" counts the decoded tokens that are those of the copy.
    """
    patches, columns, named = conditions(writes)
    arms = [Arm(**values) for values in columns] or [NO_PATCH]
    texts = [from_values(TokenSequence, values) for values in sequences]
    left = texts[0].copied // 2
    out = generate(
        bridge,
        [list(text.tokens[:-left]) for text in texts],
        patches.patches(bridge, arms),
        max_new_tokens=left,
        stop_at_eos=False,
        text_seeds=torch.tensor([text.number for text in texts]),
    )
    wanted = torch.tensor([text.tokens[-left:] for text in texts], device=out.tokens.device)
    right = (out.tokens.view(len(arms), len(texts), left) == wanted).sum(-1)
    counts = [left] * len(texts)
    rows = rows_of(texts, arms, "right", [""] * len(texts), right, counts)
    return named_by_seed(table_of(rows), named)


def require_samples_fit(bridge: TransformerBridge, settings: LearnedSettings) -> None:
    """Raise `ValueError` if the longest prompt and its sample are more than the model reads."""
    prompts = prompt_items(bridge, settings.sampled_prompts, settings.material.seed)
    longest = max(len(prompt["tokens"]) for prompt in prompts)
    require_room(bridge, sampled_tokens=longest + settings.sampled_tokens)


def sampling_units(
    bridge: TransformerBridge,
    settings: LearnedSettings,
    writes: Mapping[str, Values],
    sequences: Sequence[TokenSequence],
) -> list[Unit]:
    """Units of samples and copies on both halves, without a patch and under all writes."""
    prompts = halves(prompt_items(bridge, settings.sampled_prompts, settings.material.seed))
    units = []
    for half in (SELECTION, REPORT):
        of_half = [text for text in sequences if text.half == half]
        copies = [text.values() for text in of_half[: settings.sampled_copies]]
        for index, part in enumerate(_parts(writes, len(prompts[half]))):
            parameters = {"writes": part, "prompts": prompts[half]}
            units.append(
                Unit(
                    SAMPLES,
                    f"{half}-{index:02}",
                    measure_loops,
                    {**parameters, "new_tokens": settings.sampled_tokens},
                )
            )
        for index, part in enumerate(_parts(writes, len(copies))):
            parameters = {"writes": part, "sequences": copies}
            units.append(Unit(COPIES, f"{half}-{index:02}", measure_copies, parameters))
    return units


def loop_rows(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples as rows of sums, with the seed of the training."""
    return pd.concat(
        [sample_totals(part).assign(seed=seed) for seed, part in samples.groupby("seed")],
        ignore_index=True,
    )


def samples_to_show(settings: LearnedSettings, rows: Tables, control: Arm) -> pd.DataFrame:
    """Samples of a few prompts, without a patch and of the first seed's true source and control."""
    samples = rows[SAMPLES]
    first = samples[samples["seed"].isin([settings.seeds[0], NO_SEED])]
    return shown_samples(first, control, _SHOWN)


def _parts(writes: Mapping[str, Values], n_texts: int) -> Iterator[dict[str, Values]]:
    """No write, then as many writes at a time as fit a batch."""
    yield {}
    names, size = list(writes), max(1, TEXTS_AT_ONCE // n_texts)
    for start in range(0, len(names), size):
        yield {name: writes[name] for name in names[start : start + size]}
