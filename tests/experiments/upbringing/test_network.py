"""Networks that are read at every layer: against the lens, and where their gradients stop."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.experiments.design.small_networks.bridges import bridge_of
from lens_interventions.experiments.design.small_networks.training import mean_nats
from lens_interventions.experiments.upbringing.arms import ARMS, STOPPED, UNTIED, Training
from lens_interventions.experiments.upbringing.evaluation import KL, LOSS, RIGHT, readings
from lens_interventions.experiments.upbringing.network import LayeredNetwork
from tests.support.small_upbringing import SHAPE, small_network
from tests.support.tiny import tiny_tokenizer


def texts(n: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(4, SHAPE.d_vocab, (n, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
def test_readings_are_those_of_the_lens(tied):
    network, tokens = small_network(tied=tied), texts()
    with torch.no_grad():
        found = readings(network, tokens)
    read = li.logit_lens(bridge_of(network.model, tiny_tokenizer(), "small"), tokens)
    for name, expected in ((KL, read.kl_final), (LOSS, -read.next_log_prob)):
        torch.testing.assert_close(found[name], expected[..., :-1].double(), rtol=0, atol=1e-9)
    assert torch.equal(found[RIGHT] == 1, read.next_rank[..., :-1] == 0)


def learning(loss: torch.Tensor, network: LayeredNetwork) -> set[str]:
    """The parts of a network that a loss changes."""
    network.zero_grad()
    loss.backward()
    names = {
        name for name, p in network.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    return {
        ".".join(name.split(".")[1:3]) if ".h." in name else name.removesuffix(".weight")
        for name in names
    }


@pytest.mark.parametrize("layer", [1, 2])
def test_a_loss_teaches_its_own_block_alone_where_gradients_stop(layer):
    network, tokens = small_network(tied=False), texts()

    def taught(*, stopped):
        stream = network.streams(tokens, stopped=stopped)[layer]
        return learning(mean_nats(network.read(stream), tokens), network)

    reading = {"transformer.ln_f", "transformer.ln_f.bias", "lm_head"}
    embedding = {"transformer.wte", "transformer.wpe"}
    below = {f"h.{number}" for number in range(layer)}
    assert taught(stopped=False) == reading | embedding | below
    alone = reading | {f"h.{layer - 1}"}
    assert taught(stopped=True) == (alone | embedding if layer == 1 else alone)


def test_a_myopic_loss_is_the_mean_over_layers():
    network, tokens = small_network(), texts()
    seeds = torch.arange(2)
    own = [mean_nats(network.read(stream), tokens) for stream in network.streams(tokens)[1:]]
    losses = {arm: Training(arm, 0).loss(network, tokens, seeds) for arm in ARMS}
    for arm, loss in losses.items():
        expected = (own[0] + own[1]) / 2 if "myopic" in arm else own[1]
        torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    # The first block learns what its own loss teaches it, half as fast, and nothing else.
    first = list(network.model.transformer.h[0].parameters())
    expected = torch.autograd.grad(own[0] / 2, first)
    for mine, other in zip(torch.autograd.grad(losses[STOPPED], first), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_arms_begin_alike_but_for_an_unembedding_of_their_own():
    tied, untied = (
        dict(LayeredNetwork(SHAPE, tied=arm != UNTIED, seed=3).model.named_parameters())
        for arm in ("plain", UNTIED)
    )
    assert set(untied) - set(tied) == {"lm_head.weight"}
    for name, parameter in tied.items():
        assert torch.equal(parameter, untied[name]), name
