"""The search against exhaustive enumeration, and what it promises of budget, model and results."""

import itertools

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.search.continuations import continuations
from lens_interventions.search.objectives import one_hot
from tests.support.small_search import D_VOCAB, LENGTH, PROMPT, small_bridge
from tests.support.tiny import shared_bridge, tiny_bridge
from tests.support.user_hooks import LASTING, push_first

pytestmark = pytest.mark.usefixtures("exact")

ENDING = torch.tensor([2, 10])
ALL = torch.tensor(list(itertools.product(range(D_VOCAB), repeat=LENGTH)))
METHODS = ("exponentiated", "softmax", "straight_through", "gumbel", "swaps")
BUDGET = 40_000
FEW = li.SearchOptions(restarts=2)
PROBE = torch.ones(1, requires_grad=True)


@torch.no_grad()
def log_probs(bridge, sequences, ending=ENDING[:0]):
    """Of every token after the prompt, by the model's own forward."""
    rows = [torch.cat([PROMPT, row, ending]) for row in sequences]
    text = torch.stack(rows)
    logits = torch.cat([bridge(part) for part in text.split(4096)])
    after = len(PROMPT)
    return logits[:, after - 1 : -1].log_softmax(-1).gather(-1, text[:, after:, None])[..., 0]


@pytest.fixture(scope="module")
def small():
    return small_bridge()


@pytest.fixture(scope="module")
def every_sequence(small):
    return log_probs(small, ALL).sum(-1)


@pytest.mark.parametrize("method", METHODS)
def test_it_finds_what_exhaustive_search_finds(small, every_sequence, method):
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        method=method,
        budget=BUDGET,
        options=li.SearchOptions(restarts=16),
    )
    assert found.tokens[0].tolist() == ALL[every_sequence.argmax()].tolist()
    torch.testing.assert_close(found.log_likelihood[0], every_sequence.max())
    # Half of what all sequences cost.
    assert found.evaluations <= BUDGET < len(ALL) * LENGTH


def test_the_likeliest_ending_is_found(small):
    exact = log_probs(small, ALL, ENDING)[:, LENGTH:].sum(-1)
    found = li.search_sequence(
        small,
        PROMPT,
        LENGTH,
        objective="ending",
        ending=ENDING,
        budget=BUDGET,
        options=li.SearchOptions(restarts=16),
    )
    torch.testing.assert_close(found.values[0], exact.max())


@pytest.mark.parametrize("method", ["exponentiated", "gumbel"])
def test_any_function_can_be_maximised(small, method):
    """One that looks at what comes after the sequence, and at the tokens themselves."""

    def objective(logits, tokens):
        return logits[:, -1].log_softmax(-1)[:, 5] - tokens[:, :, 8].sum(-1)

    with torch.no_grad():
        after = torch.cat([PROMPT.expand(len(ALL), -1), ALL], 1)
        logits = torch.cat([small(part)[:, -1:] for part in after.split(4096)])
    exact = objective(logits, one_hot(ALL, D_VOCAB, logits.dtype))
    found = li.search_sequence(
        small, PROMPT, LENGTH, objective=objective, method=method, budget=4000, options=FEW
    )
    place = (found.tokens[0] == ALL).all(1).nonzero()[0, 0]
    torch.testing.assert_close(found.values[0], exact[place])
    assert (exact > found.values[0]).double().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_objective_gets_tokens_in_the_dtype_of_the_logits(dtype):
    seen = set()

    def objective(logits, tokens):
        seen.add((logits.dtype, tokens.dtype))
        return logits[:, -1, 5] + tokens[..., 8].sum(-1)

    for method in METHODS:
        li.search_sequence(
            shared_bridge("llama", dtype),
            [5, 6],
            3,
            objective=objective,
            method=method,
            budget=100,
            options=FEW,
        )
    assert seen == {(dtype, dtype)}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_reported_is_of_real_tokens_and_within_the_budget(llama, method):
    budget = 700
    found = li.search_sequence(
        llama, "people say", 6, method=method, budget=budget, options=FEW, seed=3
    )
    again = li.teacher_forced_log_probs(
        llama,
        torch.cat([llama.to_tokens("people say").expand(2, -1), found.tokens], dim=1),
        None,
    )
    torch.testing.assert_close(found.log_probs, again[:, -6:])
    assert found.values.tolist() == sorted(found.values.tolist(), reverse=True)
    assert found.texts == tuple(map(llama.tokenizer.decode, found.tokens.tolist()))
    frame = found.to_dataframe()
    assert frame["best"].is_monotonic_increasing
    assert frame["evaluations"].max() == found.evaluations <= budget
    torch.testing.assert_close(torch.tensor(frame["best"].iloc[-1]), found.values[0].double())
    assert not set(found.tokens.flatten().tolist()) & set(llama.tokenizer.all_special_ids)


def test_a_sequence_costs_its_tokens_and_a_gradient_three_times_as_many(llama):
    options = li.SearchOptions(restarts=3, candidates=5)
    found = li.search_sequence(
        llama, [5, 6, 7], 6, method="swaps", budget=3 * 6 + 3 * 3 * 6 + 3 * 5 * 6, options=options
    )
    assert found.to_dataframe()["evaluations"].unique().tolist() == [18, 18 + 54 + 90]


def test_one_seed_gives_one_result_and_restarts_are_those_of_a_smaller_batch(llama):
    # The ascent alone, ten steps of it.
    few, more = (
        li.search_sequence(
            llama,
            [5, 6, 7],
            5,
            method="gumbel",
            budget=restarts * 5 * 31,
            options=li.SearchOptions(restarts=restarts, relaxed_share=1.0),
        ).to_dataframe()
        for restarts in (1, 3)
    )
    first = more[more["restart"] == 0]
    assert first["value"].to_numpy() == pytest.approx(few["value"].to_numpy())


@pytest.mark.parametrize("bridge", ["gpt2", "gemma3_text", "cohere2", "granite"], indirect=True)
def test_distributions_on_single_tokens_are_those_tokens(bridge):
    """The model reads them as it reads the text, also from a cache, embeddings scaled or not."""
    prompt, tokens = torch.tensor([5, 9, 11, 30, 8, 7, 50, 21]), torch.tensor([[6, 40, 22]])
    model = continuations(bridge, prompt, torch.tensor([4]), 3)
    assert model.cache is not None
    with torch.no_grad():
        whole = bridge(torch.cat([prompt, tokens[0], torch.tensor([4])])[None])[
            :, len(prompt) - 1 :
        ]
        for rows in (3, 4, 5):
            read = model.of_tokens(tokens, rows)
            soft = model.of_weights(one_hot(tokens, whole.shape[-1], whole.dtype), rows)
            torch.testing.assert_close(read, whole[:, :rows])
            torch.testing.assert_close(soft, whole[:, :rows])


@pytest.mark.parametrize("put_on", LASTING)
def test_a_hook_that_lasts_sees_whole_texts(put_on, llama):
    prompt, tokens = torch.tensor([5, 9, 11, 30]), torch.tensor([[6, 40, 22]])
    with torch.no_grad(), put_on(llama, 1, push_first):
        read = continuations(llama, prompt, prompt[:0], 3).of_tokens(tokens, 3)
        whole = llama(torch.cat([prompt, tokens[0]])[None])
    torch.testing.assert_close(read, whole[:, 3:6])


def test_rows_of_the_embedding_without_a_token_are_not_searched():
    """Many models have such rows, and nothing trained them."""
    bridge = tiny_bridge("llama", vocab_size=160)
    named = len(bridge.tokenizer)
    found = li.search_sequence(bridge, [5, 6], 3, budget=600)
    assert named < 160
    assert int(found.tokens.max()) < named
    start = torch.tensor([[named, 40, 41]])
    with pytest.raises(ValueError, match="start"):
        li.search_sequence(bridge, [5, 6], 3, start=start, budget=60)
    found = li.search_sequence(bridge, [5, 6], 3, start=start, budget=6, exclude=[])
    assert int(found.tokens.max()) == named


def test_a_start_is_never_lost(llama):
    start = torch.tensor([[40, 41, 42], [50, 51, 52]])
    found = li.search_sequence(llama, [5, 6], 3, start=start, budget=60)
    frame = found.to_dataframe()
    first = frame[frame["phase"] == "start"]
    assert len(found.tokens) == 2
    assert (found.values.numpy() >= sorted(first["value"], reverse=True)).all()


@pytest.mark.usefixtures("as_users_run")
def test_ids_and_numbers_may_be_of_other_integers(llama):
    start = torch.tensor([[40, 41, 42], [50, 51, 52]])
    expected = li.search_sequence(llama, [5, 6], 3, start=start, budget=60)
    for other in (start.int(), start.numpy(), start.tolist()):
        found = li.search_sequence(llama, [5, 6], np.int64(3), start=other, budget=60)
        assert torch.equal(found.tokens, expected.tokens)
    with pytest.raises(TypeError, match=r"start must be integer token ids, got torch\.float32"):
        li.search_sequence(llama, [5, 6], 3, start=start.float(), budget=60)


def test_hooks_of_the_user_act_on_the_search(llama):
    """A hook that was made for the whole text gets the whole text."""

    def zero_the_prompt(resid, hook):
        return torch.cat([resid[:, :2] * 0, resid[:, 2:]], dim=1)

    with llama.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", zero_the_prompt)]):
        found = li.search_sequence(llama, [5, 6, 7], 3, budget=300, options=FEW)
        text = torch.cat([torch.tensor([5, 6, 7]), found.tokens[0]])[None]
        logits = llama(text)[:, 2:-1]
    expected = logits.log_softmax(-1).gather(-1, found.tokens[:1, :, None]).sum()
    torch.testing.assert_close(found.values[0], expected.detach())
    last = found.to_dataframe()["best"].iloc[-1]
    assert last == pytest.approx(float(found.values[0]))


def test_hooks_that_distributions_would_pass_by_are_refused(llama):
    def twice(tensor, hook=None):
        return 2 * tensor

    def refused():
        return pytest.raises(ValueError, match=r"a hook on embed\S*, which would not act on distri")

    point = llama.hook_dict["embed.hook_out"]
    with llama.hooks(fwd_hooks=[("hook_embed", twice)]), refused():
        li.search_sequence(llama, [5, 6], 3, budget=60, options=FEW)
    point.add_perma_hook(twice)
    with refused():
        li.search_sequence(llama, [5, 6], 3, budget=60, options=FEW)
    point.remove_hooks(including_permanent=True)
    handle = llama.embed.register_forward_hook(lambda _module, _args, out: 2 * out)
    with refused():
        li.search_sequence(llama, [5, 6], 3, budget=60, options=FEW)
    handle.remove()


def test_the_plot_shows_the_best_so_far(llama):
    figure = li.search_sequence(llama, [5, 6], 3, budget=100, options=FEW).plot()
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert "best so far" in names
    assert {"restart 0", "restart 1"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "annealing"}, "method must be one of"),
        ({"objective": "beauty"}, "objective must be"),
        ({"objective": "ending"}, "ending=' plasma.'"),
        ({"ending": [3]}, "leave it out"),
        ({"budget": 5}, "give at least 12"),
        ({"start": [[5, 6]]}, r"shape \[restart, 3\]"),
        ({"start": [[5, 6, 0]]}, r"holds \[0\]"),
        ({"exclude": list(range(1, 112))}, "exclude fewer"),
        ({"n_tokens": 500}, "search for 126 at most"),
        ({"n_tokens": 0}, "at least 1"),
        ({"prompt": ["say", "mean"]}, "one text, got 2"),
        ({"objective": lambda logits, _tokens: logits.mean()}, "one number for each"),
        ({"objective": lambda logits, _tokens: logits.sum((1, 2)) * torch.nan}, "returned NaN"),
        (
            {"objective": lambda logits, _tokens: logits.argmax(-1).sum(-1)},
            "must be differentiable",
        ),
        (
            {"objective": lambda logits, _: PROBE * logits.detach().sum((1, 2))},
            "must be differentiable",
        ),
    ],
)
def test_wrong_input_is_answered(llama, as_users_run, arguments, said):
    with pytest.raises(ValueError, match=said):
        li.search_sequence(**{"bridge": llama, "prompt": [5, 6], "n_tokens": 3, **arguments})


@pytest.mark.parametrize("name", ["n_tokens", "budget", "seed"])
@pytest.mark.parametrize("number", [2.0, True])
def test_numbers_that_are_not_whole_are_refused_by_name(llama, as_users_run, name, number):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got {number}"):
        li.search_sequence(**{"bridge": llama, "prompt": [5, 6], "n_tokens": 3, name: number})


@pytest.mark.parametrize("arch", ["jamba", "zamba2", "rwkv"])
def test_a_recurrent_model_runs_whole_texts(arch):
    bridge = shared_bridge(arch)
    found = li.search_sequence(bridge, [5, 6, 7], 2, method="swaps", budget=40, progress=False)
    text = torch.cat([torch.tensor([5, 6, 7]), found.tokens[0]])
    own = bridge(text[None])[0, 2:-1].log_softmax(-1).gather(-1, text[3:, None])
    torch.testing.assert_close(found.log_likelihood[0], own.sum())


def test_a_text_may_fill_the_context(llama):
    n_tokens = int(llama.cfg.n_ctx) - 2
    found = li.search_sequence(
        llama, [5, 6], n_tokens=n_tokens, method="swaps", budget=8 * n_tokens, progress=False
    )
    assert found.tokens.shape[-1] == n_tokens
    with pytest.raises(ValueError, match=f"search for {n_tokens} at most"):
        li.search_sequence(llama, [5, 6], n_tokens=n_tokens + 1)
    with pytest.raises(ValueError, match="shorten the prompt"):
        li.search_sequence(llama, [5] * (n_tokens + 2), n_tokens=1)


def test_values_that_are_not_numbers_are_refused(llama):
    hooks = [("blocks.0.hook_mlp_out", lambda written, hook: written * torch.nan)]
    with llama.hooks(fwd_hooks=hooks), pytest.raises(ValueError, match="is not a number"):
        li.search_sequence(llama, [5, 17, 4], n_tokens=2)
