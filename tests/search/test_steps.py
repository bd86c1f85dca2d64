"""The steps of ascents and swaps, against loops in numpy and their distributions."""

import numpy as np
import pytest
import torch

import lens_interventions as li
from tests.support.small_search import D_VOCAB, FUNCTION_COST, LENGTH, PROMPT, small_bridge

pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="module")
def small():
    return small_bridge()


def test_a_draw_next_to_one_proposes_no_excluded_token(small):
    """At its first step, this seed draws 1 - 2**-26 for a token of the last position."""
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective=lambda _logits, tokens: tokens[..., 0].sum(-1),
        method="gumbel",
        exclude=[0],
        budget=200,
        options=li.SearchOptions(restarts=1, relaxed_share=1.0),
        seed=416882,
    )
    assert (found.tokens != 0).all()


def weighted(table):
    """An objective that is linear in the tokens: `table[pos, id]` for each."""
    return lambda _logits, tokens: (tokens * table.to(tokens)).sum((1, 2))


def test_the_entropy_of_the_exponentiated_ascent_falls_linearly_to_nothing(small):
    """Against a loop in numpy: when the likeliest tokens leave the start depends on it."""
    rng = np.random.default_rng(0)
    table, start = rng.normal(size=(LENGTH, D_VOCAB)), rng.integers(0, D_VOCAB, (6, LENGTH))
    looks, rate, entropy = 20, 0.2, 0.5
    n_steps = 5 * looks  # the likeliest tokens are scored at every fifth
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective=weighted(torch.from_numpy(table)),
        method="exponentiated",
        start=start.tolist(),
        # Of each restart: the start, then steps that cost three, and the looks.
        budget=6 * FUNCTION_COST * (1 + 3 * n_steps + looks),
        options=li.SearchOptions(
            relaxed_share=1.0, learning_rate=rate, entropy=entropy, noise=0.0, start_score=10.0
        ),
    )
    scores = 10.0 * np.eye(D_VOCAB)[start]
    expected = []
    for step in range(n_steps):
        log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        weight = entropy * (1 - step / n_steps)
        scores = scores + rate * (table - weight * log_probs)
        if step % 5 == 4:
            best = scores.argmax(-1)
            expected.append(table[np.arange(LENGTH), best].sum(-1))
    frame = found.to_dataframe()
    values = frame[frame["phase"] == "ascent"]["value"].to_numpy().reshape(looks, 6)
    # The same tokens have the same value up to the rounding of float32.
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


def test_every_step_of_the_gumbel_ascent_draws_new_tokens_from_the_distributions(small):
    seen = []

    def flat(_logits, tokens):
        seen.append(tokens.detach().argmax(-1))
        return 0 * tokens.sum((1, 2))  # so that the distributions stay as they are

    start = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    n_steps = 100
    li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective=flat,
        method="gumbel",
        start=start,
        budget=3 * FUNCTION_COST * (1 + 3 * n_steps),
        options=li.SearchOptions(relaxed_share=1.0, entropy=0.0, noise=0.0, start_score=2.0),
    )
    # The start comes before the steps, and the results, one by one, after them.
    assert len(seen) == 1 + n_steps + len(start)
    drawn = torch.stack(seen[1 : 1 + n_steps])
    share = np.exp(2) / (np.exp(2) + D_VOCAB - 1)
    found = (drawn == start).double().mean(0)
    # Five standard deviations, at each of twelve positions.
    assert (found - share).abs().max() < 5 * np.sqrt(share * (1 - share) / n_steps)
    # A step says nothing about the next one.
    again = (drawn[1:] == drawn[:-1]).double().mean()
    equal = share**2 + (1 - share) ** 2 / (D_VOCAB - 1)
    assert abs(again - equal) < 5 * np.sqrt(equal * (1 - equal) / (12 * (n_steps - 1)))


def test_the_swap_that_gains_most_at_any_position_is_tried_first(small):
    rng = np.random.default_rng(0)
    # A token of one position may be worth much, and its swap gain little.
    table = rng.normal(size=(LENGTH, D_VOCAB)) + 5 * rng.normal(size=(LENGTH, 1))
    start = rng.integers(0, D_VOCAB, (8, LENGTH))
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective=weighted(torch.from_numpy(table)),
        method="swaps",
        start=start.tolist(),
        budget=8 * FUNCTION_COST * (1 + 3 + 1),
        options=li.SearchOptions(candidates=1),
    )
    expected = []
    for row in start:
        swapped = [
            sum(table[at, token if at == place else row[at]] for at in range(LENGTH))
            for place in range(LENGTH)
            for token in range(D_VOCAB)
            if token != row[place]
        ]
        expected.append(max(swapped))
    frame = found.to_dataframe()
    tried = frame[frame["phase"] == "swaps"]["value"].to_numpy()
    np.testing.assert_allclose(tried, expected, rtol=0, atol=1e-5)  # in float32


@pytest.mark.parametrize("method", ["exponentiated", "softmax", "gumbel"])
def test_an_ascent_takes_no_more_than_the_whole_budget(small, method):
    options = li.SearchOptions(restarts=1, relaxed_share=1.0)
    for budget in range(LENGTH, 33 * LENGTH, 7):
        found = li.search_sequence(
            small, PROMPT, LENGTH, method=method, budget=budget, options=options
        )
        assert found.evaluations <= budget


def test_scores_that_drift_do_not_let_excluded_tokens_in(small):
    """An objective that falls for all tokens alike pushes all scores down."""
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective=lambda _logits, tokens: -2e4 * tokens.sum((1, 2)) + tokens[..., 5].sum(-1),
        method="exponentiated",
        exclude=[0],
        budget=4000,
        options=li.SearchOptions(restarts=1, relaxed_share=1.0),
    )
    assert (found.tokens != 0).all()
    assert (found.tokens == 5).all()
