"""What a pretended CUDA or MPS device gives is what the CPU gives.

The device only refuses what those refuse (`tests.support.other_device`), such as float64 on MPS.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

import lens_interventions as li
from lens_interventions.app.server import TASKS
from lens_interventions.app.state import State
from lens_interventions.app.subject import Origin, Subject
from lens_interventions.intervention.sources import control_names
from tests.support import (
    small_increment,
    small_last_word,
    small_likeliest,
    small_preservation,
    small_slopes,
)
from tests.support.other_device import other_device
from tests.support.tiny import tiny_model, tiny_tokenizer

pytestmark = pytest.mark.long

KINDS = ("cuda", "mps")
TEXT = "the cat sat on the mat and the cat ran"
TEXTS = [TEXT, "a dog ran home to the cat", "mat mat mat the dog"] * 3
PATCH = li.NextTokenPatch(layer=1, strength=0.3, scale="norm", first_position=1)
ADDED = dataclasses.replace(PATCH, mode="add")
SOURCES = control_names()
PATCHES = [
    None,
    PATCH,
    ADDED,
    dataclasses.replace(PATCH, mode="correct"),
    dataclasses.replace(PATCH, embedding="W_U"),
    *(dataclasses.replace(PATCH, source=source) for source in SOURCES),
    dataclasses.replace(PATCH, source=li.BackPatch(2)),
]
OPTIONS = li.TrainingOptions(window=8, batch_size=2, held_out_windows=2, evaluate_every=2)


def bridge_on(device, n_ctx=512):
    """A tiny model in float32, which MPS can hold."""
    model = tiny_model("llama", dtype=torch.float32, max_position_embeddings=n_ctx)
    return li.load_model("tiny", hf_model=model, device=str(device), tokenizer=tiny_tokenizer())


def lens(bridge, tmp_path):
    _, cache = bridge.run_with_cache(bridge.to_tokens(TEXT))
    read = li.logit_lens(bridge, cache, tokens=bridge.to_tokens(TEXT), watch="a", incl_mid=True)
    read.plot_top1()
    return li.logit_lens(bridge, TEXTS), read, li.lens_over(bridge, TEXTS, progress=False)


def components(bridge, tmp_path):
    return li.component_logits(bridge, TEXT, token="a")


def fitted_lens(bridge, tmp_path):
    options = {"window": 10, "progress": False}
    fitted = li.fit_affine_lens(bridge, TEXTS, checkpoint=tmp_path / "fit", **options)
    refined = li.refine_affine_lens(
        bridge, fitted, TEXTS, steps=2, held_out=64, batch=16, progress=False
    )
    moved = fitted.to(bridge.W_U.device)
    assert moved(bridge.W_U[:, :1].T, 0).device == moved.weight.device == bridge.W_U.device
    read = li.logit_lens(bridge, TEXT, lens=moved)
    return fitted, refined, read, li.lens_quality(bridge, fitted, TEXTS)


def input_probe(bridge, tmp_path):
    probe = li.fit_input_probe(bridge, TEXTS, window=10, progress=False)
    basis = li.embedding_basis(bridge)
    assert basis.directions.device == bridge.W_U.device
    elsewhere = dataclasses.replace(basis, directions=basis.directions.cpu())
    li.input_reading(bridge, probe, TEXTS, elsewhere, progress=False)
    recovered = li.input_recovery(bridge, probe, TEXTS, progress=False)
    reading = li.input_reading(bridge, probe, TEXTS, basis, progress=False)
    return probe, basis.importance, recovered, reading.to_dataframe()


def unlikely(bridge, tmp_path):
    return li.unlikely_components(bridge, TEXTS, progress=False)


def teacher_forcing(bridge, tmp_path):
    log_probs = li.teacher_forced_log_probs(bridge, TEXTS, PATCHES)
    assert log_probs.device == bridge.W_U.device
    return log_probs, li.teacher_forced_logits(bridge, TEXT, PATCH)


def hooks(bridge, tmp_path):
    tokens = bridge.to_tokens(TEXT)
    directions = torch.eye(bridge.cfg.d_model)[:2].to(tokens.device)
    with bridge.hooks(fwd_hooks=PATCH.fwd_hooks(bridge, tokens)):
        patched = bridge(tokens)
    with bridge.hooks(fwd_hooks=li.ablate_directions(1, directions)):
        return patched, bridge(tokens)


def generation(bridge, tmp_path):
    greedy = li.generate(bridge, TEXTS, PATCHES, max_new_tokens=4)
    processors = [TopPLogitsWarper(0.9), RepetitionPenaltyLogitsProcessor(1.1)]
    sampled = li.generate(
        bridge,
        TEXTS,
        [None, PATCH],
        max_new_tokens=4,
        do_sample=True,
        temperature=0.9,
        seed=3,
        logits_processor=processors,
    )
    contrasted = [
        li.generate(bridge, TEXT, max_new_tokens=4, logits_processor=[contrast])
        for contrast in (li.DoLa(), li.SLED())
    ]
    by_model = bridge.original_model.generate(
        bridge.to_tokens(TEXT),
        max_new_tokens=4,
        do_sample=False,
        custom_generate=li.as_custom_generate(bridge, PATCH),
    )
    written = list(li.sample_texts(bridge, 2, length=6, progress=False))
    return greedy, sampled, contrasted, by_model, written


def training(bridge, tmp_path):
    options = {"layer": 1, "rank": 2, "steps": 4, "options": OPTIONS, "progress": False}
    write = li.train_patch(bridge, TEXTS, **options).write
    adapted = li.train_patch(
        bridge, TEXTS, adapt="attention+mlp", adapter_rank=2, checkpoint=tmp_path / "c", **options
    ).write
    adapted.save(tmp_path / "write.safetensors")
    loaded = li.LearnedWrite.load(tmp_path / "write.safetensors")
    with loaded.reader.on(bridge):
        read = li.teacher_forced_log_probs(bridge, TEXTS, loaded.patch())
    return write, li.generate(bridge, TEXT, write.patch(), max_new_tokens=3), read


def slopes(bridge, tmp_path):
    options = {"scopes": ("all", "copyable", "repeated_surprise"), "progress": False}
    return (
        li.slope_map(bridge, TEXTS, **options).to_dataframe(),
        li.curvature(bridge, TEXTS, ADDED, **options).to_dataframe(),
        li.head_slopes(bridge, TEXTS, ADDED, **options).to_dataframe(),
        li.rescue(bridge, TEXTS, ADDED, **options).to_dataframe(),
        li.linear_ceiling(bridge, TEXTS, TEXTS[:2], progress=False).to_dataframe(),
    )


def behaviour(bridge, tmp_path):
    tokens = bridge.to_tokens(TEXT)
    nats = -li.teacher_forced_log_probs(bridge, tokens)
    bins = li.behaviour.bin_by(nats, (1.0, 4.5))
    ranks = li.behaviour.bin_by(tokens, (3.5, 50))
    return bins.index, ranks.index, li.behaviour.bin_totals(nats, bins.index, 3)


def effects(bridge, tmp_path):
    return li.effect_map(bridge, TEXT, lambda logits: logits[:, -1, 3].mean(), patch=PATCH)


def search(bridge, tmp_path):
    return [
        li.search_sequence(bridge, TEXT, 3, method=method, budget=40)
        for method in ("exponentiated", "swaps")
    ]


def explorer(bridge, tmp_path):
    subject, shown = Subject(bridge, Origin()), []
    chosen = {"layer": 1, "max_new_tokens": 4, "temperature": 1.0, "top_k": 5, "watch": (5,)}
    for task, run in TASKS.items():
        run(subject, State(**chosen), lambda name, data: shown.append((name, data)))
        assert shown, task
    return [data for _, data in shown]


FEATURES = (
    lens,
    components,
    fitted_lens,
    input_probe,
    unlikely,
    teacher_forcing,
    hooks,
    generation,
    training,
    slopes,
    behaviour,
    effects,
    search,
    explorer,
)


def numbers(found: object, depth: int = 0) -> Iterator[np.ndarray]:
    """All arrays of numbers in a result, in order."""
    if isinstance(found, torch.Tensor):
        found = found.detach().cpu().numpy()
    if isinstance(found, np.ndarray):
        yield found.astype(np.float64)
    elif isinstance(found, pd.DataFrame):
        yield found.select_dtypes("number").to_numpy(np.float64)
    elif isinstance(found, int | float):
        yield np.array(found, np.float64)
    elif isinstance(found, dict):
        yield from itertools.chain.from_iterable(numbers(x, depth) for x in found.values())
    elif isinstance(found, list | tuple):
        yield from itertools.chain.from_iterable(numbers(x, depth) for x in found)
    elif dataclasses.is_dataclass(found) and depth < 3:
        for field in dataclasses.fields(found):
            yield from numbers(getattr(found, field.name), depth + 1)


def assert_same(found, expected):
    found, expected = list(numbers(found)), list(numbers(expected))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        # Products of the CPU that are not those of another device round float32 in another way.
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.__name__)
def test_a_feature_works_on_another_device(feature, tmp_path):
    for kind in ("cpu", *KINDS):
        (tmp_path / kind).mkdir()
    expected = feature(bridge_on("cpu"), tmp_path / "cpu")
    for kind in KINDS:
        with other_device(kind) as device:
            assert_same(feature(bridge_on(device), tmp_path / kind), expected)


# One table each, which all other tables are made of. What is met there is a matter of neither the
# number of prompts nor that of steps.
EXPERIMENTS = {
    "increment": (
        dataclasses.replace(
            small_increment.SMALL, seeds=(0,), steps=2, base_steps=2, pilot_steps=1
        ),
        "losses",
    ),
    "last_word": (small_last_word.SETTINGS, "influence"),
    "likeliest": (
        dataclasses.replace(
            small_likeliest.SETTINGS, prompts=2, choosing=1, variants=("gumbel",), lengths=(16,)
        ),
        "sequences_rows",
    ),
    "preservation": (small_preservation.SMALL, "correlations"),
    "slopes": (small_slopes.SMALL, "slopes"),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_on_another_device(name):
    settings, table = EXPERIMENTS[name]
    with other_device("mps") as device:
        bridge = bridge_on(device)
        bridge.tokenizer.chat_template = small_last_word.TEMPLATE
        result = getattr(li.experiments, name)(bridge, settings=settings)
    assert result.header["model"]["device"] == "mps"
    assert len(result.tables[table])


REFUSED = {
    "two devices": lambda there: there + torch.ones(3),
    "an index on the device": lambda there: torch.ones(3)[there.long()],
    "rows chosen by the CPU": lambda there: there.index_select(0, torch.tensor([0])),
    "a value from the CPU": lambda there: there.index_put_((torch.tensor([0]),), torch.ones(1)),
    "a number from the CPU beside it": lambda there: torch.stack([there[0], torch.tensor(1.0)]),
    "a generator of the CPU": lambda there: torch.rand(
        3, device=there.device, generator=torch.Generator()
    ),
    "numpy": lambda there: there.numpy(),
    "a weight on the CPU": lambda there: torch.nn.Linear(3, 3)(there),
    "float64": lambda there: there.double(),
    "float64 from the start": lambda there: there.new_zeros(3, dtype=torch.float64),
    "float64 made there": lambda there: torch.zeros(3, dtype=torch.float64, device=there.device),
    "float64 moved there": lambda there: torch.zeros(3, dtype=torch.float64).to(there.device),
    "float64 on the way": lambda there: there.to("cpu", torch.float64),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_pretended_device_refuses(what):
    with other_device("mps") as device:
        there = torch.zeros(3, device=device)
        assert there[1:].device == device
        assert there.cpu().device.type == "cpu"
        with pytest.raises((RuntimeError, TypeError), match=r"devices|MPS|numpy"):
            REFUSED[what](there)
