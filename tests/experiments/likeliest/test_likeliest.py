"""The likeliest experiment from start to end, and verdicts on planted data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from lens_interventions.experiments import load_result, read_tables
from lens_interventions.experiments.likeliest import likeliest
from lens_interventions.experiments.likeliest.analysis import LIKELIEST, analyse
from lens_interventions.experiments.likeliest.sequences import (
    SAMPLE,
    ascent_name,
    beam,
    beam_name,
    best_name,
    drawn,
    swaps_name,
)
from lens_interventions.experiments.likeliest.stages import choose, compare
from tests.support.small_likeliest import SETTINGS
from tests.support.small_loops import roomy_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from start to end."""
    out = tmp_path_factory.mktemp("likeliest")
    likeliest(roomy_bridge, settings=SETTINGS, out=out)
    return out


def test_a_run_from_start_to_end(finished: Path) -> None:
    result = load_result(finished)
    ways = result.to_dataframe()
    assert (ways["n"] == SETTINGS.prompts).all()
    assert (ways["wins"] <= 1).all()
    of = ways[ways["length"] == 16].set_index("way")
    # One price for all but greedy decoding, one sample and the narrow beams.
    paid = of["evaluations"].drop(index=[LIKELIEST, "greedy", SAMPLE, beam_name(2)])
    assert (paid == SETTINGS.width * 16).all()
    assert of.loc[LIKELIEST, "estimate"] >= of["estimate"].max()
    # Swaps never lose what they begin with.
    assert of.loc[swaps_name(beam_name(2)), "estimate"] >= of.loc[beam_name(2), "estimate"] - 1e-6
    figures = result.figures()
    assert {finding.figure for finding in result.verdicts} <= set(figures)


def test_rows_give_the_same_analysis_again(finished: Path) -> None:
    again = analyse(SETTINGS, read_tables(finished))
    assert_frame_equal(again.tables["ways"], load_result(finished).to_dataframe())


def test_no_two_prompts_share_a_draw() -> None:
    """Sample j is drawn with the seed of the unit plus j, and relaxations take one seed more."""
    bridge = roomy_bridge()
    units = [*choose(bridge, SETTINGS, {}), *compare(bridge, SETTINGS, planted(0.0, False))]
    seeds = {unit.parameters["prompt"]["number"]: unit.parameters["seed"] for unit in units}
    assert len(seeds) == SETTINGS.choosing + SETTINGS.prompts
    drawn = [seed + sample for seed in seeds.values() for sample in range(SETTINGS.width)]
    assert len(set(drawn)) == len(drawn)


def test_the_best_of_samples_is_the_likeliest_of_them() -> None:
    bridge, prompt, width = roomy_bridge(), [0, 40, 41, 42], 6
    samples = [drawn(bridge, prompt, 5, 1, seed)[SAMPLE] for seed in range(9, 9 + width)]

    def log_likelihood(tokens: torch.Tensor) -> float:
        text = torch.tensor([[*prompt, *tokens.tolist()]])
        log_probs = bridge(text)[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(log_probs.gather(-1, tokens[:, None]).sum())

    found = drawn(bridge, prompt, 5, width, 9)
    assert torch.equal(found[SAMPLE], samples[0])
    assert torch.equal(found[best_name(width)], max(samples, key=log_likelihood))


def test_beam_search_with_as_many_beams_as_tokens_is_exact_on_two_tokens() -> None:
    """All first tokens stay in the beam, so that of two tokens nothing is missed."""
    bridge = roomy_bridge()
    prompt = [0, 40, 41, 42]
    special = list(bridge.tokenizer.all_special_ids)
    n = int(bridge.cfg.d_vocab)
    first = bridge(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    second = bridge(torch.tensor([[*prompt, token] for token in range(n)]))[:, -1].log_softmax(-1)
    both = first[:, None] + second
    both[special], both[:, special] = -torch.inf, -torch.inf
    best = divmod(int(both.argmax()), n)
    assert beam(bridge, prompt, 2, n).tolist() == list(best)


def test_beam_search_heeds_no_penalty_of_the_models_generation_config() -> None:
    bridge, prompt = roomy_bridge(), [0, 40, 41, 42, 40, 41, 42]
    found = beam(bridge, prompt, 6, 4)
    config = bridge.original_model.generation_config
    changed = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 1, "bad_words_ids": [[9]]}
    changed |= {"eos_token_id": int(found[1]), "suppress_tokens": found.tolist()}
    before = {name: getattr(config, name) for name in changed}
    config.update(**changed)
    try:
        assert torch.equal(beam(bridge, prompt, 6, 4), found)
        assert bridge.original_model.generation_config is config
        assert {name: getattr(config, name) for name in changed} == changed
    finally:
        config.update(**before)


def planted(lead: float, looping: bool) -> dict[str, pd.DataFrame]:
    """Rows of 24 prompts where the ascent leads beam search by so many nats per token."""
    rng = np.random.default_rng(3)
    rows = []
    for prompt in range(24):
        level = rng.normal(-2, 0.5)
        for length in SETTINGS.lengths:
            for way, nats in (
                (SAMPLE, level - 1),
                (beam_name(4), level),
                (swaps_name(beam_name(2)), level + rng.normal(0, 0.01)),
                (ascent_name(), level + lead + rng.normal(0, 0.01)),
            ):
                loops = looping and way != SAMPLE
                rows.append(
                    {
                        "prompt": prompt,
                        "way": way,
                        "length": length,
                        "evaluations": 4 * length,
                        "log_likelihood": nats * length,
                        "looped": loops,
                        "rep_2": 0.8 * loops,
                        "rep_4": 0.8 * loops,
                        "tokens": [5] * length,
                    }
                )
    variants = pd.DataFrame(
        {"way": ["gumbel", "exponentiated"], "log_likelihood": [-9.0, -8.0], "length": [4, 4]}
    )
    return {"sequences": pd.DataFrame(rows), "variants": variants}


@pytest.mark.parametrize(
    ("lead", "looping", "outcomes"),
    [
        (0.3, True, ["helps", "no effect", "helps", "helps"]),
        (-0.3, False, ["hurts", "no effect", "no effect", "no effect"]),
    ],
)
def test_verdicts_on_planted_data(lead: float, looping: bool, outcomes: list[str]) -> None:
    # Of 24 prompts without a loop, half a share may still hide.
    settings = replace(SETTINGS, smallest_share=0.3)
    analysis = analyse(settings, planted(lead, looping))
    assert [finding.verdict.outcome for finding in analysis.verdicts] == outcomes
    interval = analysis.verdicts[0].verdict.interval
    assert interval.low < lead < interval.high
    assert "exponentiated, was chosen on 2 other prompts" in analysis.verdicts[0].method
    wins = analysis.tables["ways"].set_index(["length", "way"])["wins"]
    assert wins[16, ascent_name()] == (lead > 0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompts": 1}, "prompts must be at least 2"),
        ({"lengths": (8, 4)}, "rising"),
        ({"lengths": (8, 15)}, "the last at least 16"),
        ({"variants": ("annealing",)}, "some of exponentiated"),
        ({"narrow": (4,)}, "fewer than the 2 of"),
    ],
)
def test_settings_that_make_no_sense(changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SETTINGS, **changed)
