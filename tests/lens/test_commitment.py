"""From which layer on the final guess stays: held to a loop over the layers from the top down."""

import io
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from lens_interventions.lens.logit_lens import logit_lens
from tests.support.figures import TEXTS
from tests.support.tiny import shared_bridge, tiny_bridge


def walked_down(trajectory, batch, pos, holds):
    """The first point of the unbroken run that ends at the output; -1 for none."""
    first = -1
    for point in reversed(range(len(trajectory.points))):
        if not holds(point, batch, pos):
            break
        first = point
    return first


@pytest.fixture(scope="module")
def deep():
    """A model of nine layers, whose guesses come and go."""
    return logit_lens(tiny_bridge("llama", num_hidden_layers=9), TEXTS)


@pytest.mark.parametrize(
    ("option", "criterion"),
    [
        ({}, "on top"),
        ({"top": 1}, "on top"),
        ({"top": 3}, "among the top 3"),
        ({"probability": 0.5}, "above a probability of 0.5"),
        ({"probability": 0.01}, "above a probability of 0.01"),
    ],
)
def test_it_is_the_first_layer_of_the_run_that_reaches_the_output(deep, option, criterion):
    def holds(point, batch, pos):
        if "probability" in option:
            return math.exp(deep.final_log_prob[point, batch, pos]) > option["probability"]
        return deep.final_rank[point, batch, pos] < option.get("top", 1)

    found = deep.commitment(**option)
    assert found.criterion == criterion
    for batch, pos in deep.mask.nonzero().tolist():
        assert found.first[batch, pos] == walked_down(deep, batch, pos, holds)
    assert (found.first[~deep.mask] == -1).all()


def test_a_guess_that_leads_for_a_while_and_returns_commits_late(deep):
    first, rank = deep.commitment().first, deep.final_rank
    left = [
        (batch, pos)
        for batch, pos in deep.mask.nonzero().tolist()
        if (rank[: first[batch, pos], batch, pos] == 0).any()
    ]
    assert left  # the case occurs: a smaller layer with rank 0, not counted
    assert all(rank[first[b, p] - 1, b, p] > 0 for b, p in left)


def test_table_and_terminal_say_the_same(deep):
    found = deep.commitment(probability=0.5)
    frame = found.to_dataframe()
    assert len(frame) == int(deep.mask.sum())
    assert frame["first"].isna().any()  # never, for some tokens
    row = frame[frame["batch"] == 0].iloc[1]
    assert row["token"] == deep.vocab[int(deep.tokens[0, 1])]
    assert row["guess"] == deep.vocab[int(deep.top_ids[-1, 0, 1, 0])]
    console = Console(width=120, file=io.StringIO())
    console.print(found)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert len(lines) == len(frame)
    assert sum("never" in line for line in lines) == int(frame["first"].isna().sum())


def test_a_bar_reaches_the_layer(deep):
    found = deep.commitment(probability=0.3)
    figure = found.plot(batch=1)
    bars, crosses = figure.data
    first = found.first[1][deep.mask[1]].tolist()
    # Bars begin one below the first row, so that also the input has one.
    tops = [-1 if y is None else y + bars.base for y in bars.y]
    assert tops == first
    assert list(crosses.x) == [column for column, i in enumerate(first) if i < 0]
    assert figure.layout.yaxis.ticktext[-1] == "final"


def test_what_cannot_be_answered_is_refused(deep):
    below = logit_lens(shared_bridge("llama"), TEXTS, points=[0, 1])
    with pytest.raises(ValueError, match="last point that was read is 1_pre, not final_post"):
        below.commitment()
    with pytest.raises(ValueError, match=r"top=2 or probability=0\.5, not both"):
        deep.commitment(top=2, probability=0.5)
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        deep.commitment(top=0)
    with pytest.raises(ValueError, match=r"below 1, got 1\.5"):
        deep.commitment(probability=1.5)


@pytest.mark.parametrize("batch", [5, -6])
def test_a_prompt_that_is_not_there_is_named(deep, batch):
    found = deep.commitment()
    for call in (found.names, lambda batch: found.plot(batch=batch)):
        with pytest.raises(ValueError, match=f"prompt {batch} does not exist: there are"):
            call(batch)


def test_progress_calls_a_function_and_ends_when_it_raises():
    heard = []
    logit_lens(shared_bridge("llama"), TEXTS, progress=heard.append, chunk_size=4)
    assert heard == sorted(heard)
    assert heard[-1] == pytest.approx(1)
    assert len(heard) > 4

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logit_lens(shared_bridge("llama"), TEXTS, progress=stop)


def test_a_probability_that_is_only_reached_is_not_above_it():
    log_prob = torch.tensor([0.5, 0.75], dtype=torch.float64).log()[:, None, None]
    read = logit_lens(shared_bridge("llama"), [5], points=["1_pre", "final_post"])
    found = replace(read, final_log_prob=log_prob).commitment(probability=0.5)
    assert found.first.tolist() == [[1]]
