"""Training: what it learns, and that a stopped one ends in the same bits."""

import pytest
import torch

from lens_interventions._counter_random import random_integers
from lens_interventions.experiments.design.small_networks.shape import Shape
from lens_interventions.experiments.design.small_networks.training import (
    Optimization,
    TrainingRun,
    stream_batches,
)
from lens_interventions.experiments.scratch.arms import ScratchTraining, written_tokens
from lens_interventions.experiments.scratch.network import Network
from lens_interventions.experiments.scratch.training import scratch_run

D_VOCAB, LENGTH, LONGEST = 24, 32, 16


def rounds(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random tokens said again and again, after as many as differ from text to text.

    So nothing but the tokens tells from where to copy.
    """
    number = torch.arange(step * 16, (step + 1) * 16)
    part = random_integers(D_VOCAB, 7, number[:, None], torch.arange(LONGEST))
    period = 5 + random_integers(LONGEST - 5, 8, number)
    return part.gather(1, torch.arange(LENGTH) % period[:, None]), number


def losses_of_copies(arm: str) -> dict[str, float]:
    """Nats a token of the second half of new texts, after a short training of one block.

    As it was trained, and without the write in the keys and in the values of its only head.
    """
    shape = Shape(n_layers=1, d_model=32, n_heads=1, context=LENGTH, d_vocab=D_VOCAB)
    options = Optimization(
        steps=200, learning_rate=1e-2, warm_up=20, weight_decay=0.0, evaluate_every=200
    )
    run = scratch_run(ScratchTraining(1, 0, arm, 0), shape, options, rounds)
    run.to_the_end(lambda _: [{}])
    tokens, seeds = rounds(10**6)
    source, late = written_tokens(arm, tokens, 0, seeds), slice(LONGEST - 1, -1)

    @torch.no_grad()
    def loss(*closed: int) -> float:
        gates = torch.ones(1, 2, 1)
        gates[:, list(closed)] = 0.0
        logits = run.network(tokens, source, gates=gates)
        return float(torch.nn.functional.cross_entropy(logits[:, late].mT, tokens[:, LONGEST:]))

    return {"as trained": loss(), "no keys": loss(0), "no values": loss(1)}


def test_one_block_copies_with_the_true_token_and_not_with_the_current_one():
    """A guess costs log(24) = 3.18 nats, one among the tokens of a round log(10) = 2.3 or so.

    The true token is what is copied, so it is read as a value; the previous one tells where to copy
    from, so it is read as a key.
    """
    true, previous = losses_of_copies("true"), losses_of_copies("previous")
    # A guess costs some 2.3 nats more than these networks do; a tenth of that is next to nothing.
    assert true["as trained"] < 1.5
    assert true["no keys"] == pytest.approx(true["as trained"], abs=0.2)
    assert true["no values"] > 2.2
    assert previous["as trained"] < 1.5
    assert previous["no values"] == pytest.approx(previous["as trained"], abs=0.2)
    assert previous["no keys"] > 2.2
    assert losses_of_copies("current")["as trained"] > 2.2


SHAPE = Shape(n_layers=2, d_model=8, n_heads=2, context=12, d_vocab=20)
OPTIONS = Optimization(steps=7, learning_rate=1e-2, warm_up=2, weight_decay=0.01, evaluate_every=2)


def small_run(arm: str = "shuffled") -> TrainingRun[Network]:
    stream = random_integers(20, 3, torch.arange(200))
    return scratch_run(
        ScratchTraining(2, 1, arm, 4), SHAPE, OPTIONS, stream_batches(stream, 12, 3, 4)
    )


def size(run: TrainingRun[Network]) -> list[dict]:
    return [{"length": float(sum(p.square().sum() for p in run.network.parameters()))}]


def test_a_stopped_training_ends_in_the_same_bits(tmp_path):
    whole = small_run()
    whole.to_the_end(size)

    def stop(run: TrainingRun[Network]) -> list[dict]:
        if run.step == 6:
            raise KeyboardInterrupt
        return size(run)

    with pytest.raises(KeyboardInterrupt):
        small_run().to_the_end(stop, tmp_path / "state")
    resumed = small_run()
    resumed.to_the_end(size, tmp_path / "state")
    again = small_run()
    again.to_the_end(lambda _: [], tmp_path / "state")  # It is done: nothing is measured anew.
    assert [record["step"] for record in whole.records] == [0, 2, 4, 6, 7]
    for other in (resumed, again):
        assert other.records == whole.records
        for mine, theirs in zip(
            other.network.parameters(), whole.network.parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)


def test_a_file_of_another_training_is_refused(tmp_path):
    small_run().to_the_end(size, tmp_path / "state")
    with pytest.raises(ValueError, match="of another training: remove it"):
        small_run("true").to_the_end(size, tmp_path / "state")
    with pytest.raises(ValueError, match="of another training: remove it"):
        small_run().to_the_end(size, tmp_path / "state", {"batch": 4})


def test_arms_see_the_same_texts_and_begin_alike():
    begun = [small_run(arm).network for arm in ("none", "true")]
    for one, other in zip(*(network.parameters() for network in begun), strict=True):
        assert torch.equal(one, other)
    trained = small_run("none")
    trained.to_the_end(size)
    assert torch.equal(trained.network.up, begun[0].up)
    assert not trained.network.bias.any()


def test_the_learning_rate_rises_and_falls():
    rates = [OPTIONS.learning_rate_at(step) for step in range(8)]
    assert rates[0] == pytest.approx(5e-3)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[7] == pytest.approx(0.0, abs=1e-15)
