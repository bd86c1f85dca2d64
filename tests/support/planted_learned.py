"""The experiment with learned writes on the model whose copying was ablated, and its texts."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments import CopyingMaterial, LearnedSettings, Result, learned
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.material import induction_sequences
from lens_interventions.experiments.design.sequences import TokenSequence
from lens_interventions.experiments.learned import sampled
from lens_interventions.experiments.learned import stages as stages_module
from tests.support.planted_copying import N_CTX, ablated_bridge, key_value_texts

SETTINGS = LearnedSettings(
    layer=1,
    rank=16,
    # Student's t of two seeds leaves room for anything.
    seeds=(0, 1, 2),
    steps=20,
    options=li.TrainingOptions(
        window=N_CTX,
        batch_size=8,
        evaluate_every=10,
        learning_rate=0.03,
        patience=None,
        held_out_windows=8,
    ),
    material=CopyingMaterial(
        induction_sequences=(6, 12),
        induction_length=10,
        texts=("keys",),
        surprisal_edges=(1.0, 2.0),
        surprising=2.0,
        batch=12,
        resampling=Resampling(n_resamples=999),
    ),
    sweep_layers=(0, 1),
    sweep_ranks=(1, 16),
    sweep_steps=8,
    sampled_prompts=12,
    sampled_tokens=20,
    sampled_copies=6,
    read_sequences=3,
    directions=3,
)
WITHOUT_SWEEPS = dataclasses.replace(SETTINGS, sweep_layers=(), sweep_ranks=())
# Every stage and table of the whole, too short to learn much: for runs that are compared.
SHORT = dataclasses.replace(
    SETTINGS,
    seeds=(0,),
    steps=4,
    options=dataclasses.replace(SETTINGS.options, evaluate_every=2, held_out_windows=4),
    material=dataclasses.replace(
        SETTINGS.material,
        resampling=dataclasses.replace(SETTINGS.material.resampling, n_resamples=99),
    ),
    sweep_steps=2,
    sampled_prompts=4,
    sampled_tokens=16,
    sampled_copies=2,
    read_sequences=2,
)


def model() -> TransformerBridge:
    """For other processes, which find it by name."""
    return ablated_bridge()


def planted_sequences(
    bridge: TransformerBridge, settings: LearnedSettings
) -> dict[str, list[TokenSequence]]:
    """Texts of 16 tokens, which no tokenizer makes: keys with their values, and words for them."""
    texts, words = key_value_texts(24, seed=5), []
    for tokens in key_value_texts(24, seed=6):
        ids = tokens.tolist()
        # A key that came before, and its value once more: the word that is due.
        words.append([*ids[:20], ids[6], ids[7]])
    half = ("selection", "report")
    return {
        "induction": induction_sequences(bridge, settings.material),
        "text": [
            TokenSequence(n, half[n % 2], f"keys: {n}", "keys", tuple(text.tolist()), 0)
            for n, text in enumerate(texts)
        ],
        "templates": [
            TokenSequence(n, half[n % 2], f"word {n}", "rare near single", tuple(ids), 1)
            for n, ids in enumerate(words)
        ],
    }


def planted_prompts(_bridge: TransformerBridge, n: int, _seed: int) -> list[dict]:
    """Beginnings of texts, half of them on each half."""
    return [
        {
            "number": number,
            "half": ("selection", "report")[number % 2],
            "register": "keys",
            "text": str(text[:12].tolist()),
            "tokens": text[:12].tolist(),
        }
        for number, text in enumerate(key_value_texts(n, seed=7))
    ]


def planted_training_texts(*_: object) -> list[list[int]]:
    return [text.tolist() for text in key_value_texts(180, seed=1)]


@contextmanager
def planted_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(stages_module, "measured_sequences", planted_sequences)
        monkeypatch.setattr(stages_module, "training_texts", planted_training_texts)
        monkeypatch.setattr(sampled, "prompt_items", planted_prompts)
        yield


def run(settings: LearnedSettings = SETTINGS, **options: object) -> Result:
    with planted_texts():
        return learned(model, settings=settings, **options)
