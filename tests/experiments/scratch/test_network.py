"""Networks that grow up with a write: both streams, against the rest of the library."""

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions.experiments.design.small_networks.training import mean_nats
from lens_interventions.experiments.scratch.arms import ARMS, written_tokens
from lens_interventions.experiments.scratch.cost import step_flops
from lens_interventions.experiments.scratch.network import Network
from lens_interventions.intervention.mechanism.head_scores import head_scores
from tests.support.small_scratch import SHAPE, small_model, small_network

SEEDS = torch.tensor([3, 8])


def texts(n: int = 2, length: int = 12) -> torch.Tensor:
    return torch.randint(4, SHAPE.d_vocab, (n, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("arm", "entry"),
    [("true", 0), ("true", 1), ("true", 2)]
    + [(arm, 1) for arm in ("none", "current", "shuffled", "zero")],
)
def test_training_computes_what_the_library_does(arm, entry):
    network, tokens = small_network(entry), texts()
    logits = network(tokens, written_tokens(arm, tokens, 5, SEEDS)).detach()
    model = small_model(network, arm)
    expected = li.teacher_forced_logits(model.bridge, tokens, model.patch, text_seeds=SEEDS)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def test_a_write_matters_and_nothing_leaks():
    network, tokens = small_network(1), texts()
    logits = {arm: network(tokens, written_tokens(arm, tokens, 5, SEEDS)) for arm in ARMS}
    for arm in ARMS[1:]:
        assert not torch.allclose(logits[arm][:, 3:], logits["none"][:, 3:])
        changed = tokens.clone()
        changed[:, 7:] = (changed[:, 7:] + 1) % SHAPE.d_vocab
        after = network(changed, written_tokens(arm, changed, 5, SEEDS))
        assert torch.equal(after[:, :7], logits[arm][:, :7])


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_gradients_equal_finite_differences(entry):
    network, tokens = small_network(entry), texts(1, 6)
    source = written_tokens("true", tokens, 0, SEEDS[:1])
    mean_nats(network(tokens, source), tokens).backward()
    step = 1e-6
    for name, parameter in network.named_parameters():
        direction = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(2), dtype=parameter.dtype
        )
        assert parameter.grad is not None, name
        slope = float((parameter.grad * direction).sum())
        ends = []
        for sign in (1, -1):
            moved = copy.deepcopy(network)
            with torch.no_grad():
                dict(moved.named_parameters())[name].add_(sign * step * direction)
                ends.append(float(mean_nats(moved(tokens, source), tokens)))
        # A central difference of step 1e-6 has an error of 1e-10 from rounding.
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8), name


def test_patterns_are_those_that_the_library_reads():
    network = small_network(1)
    part = texts(2, 12)
    tokens = torch.cat([part, part], dim=1)
    patterns: list[torch.Tensor] = []
    network(tokens, None, patterns=patterns)
    bridge: TransformerBridge = small_model(network, "none").bridge
    _, cache = bridge.run_with_cache(tokens)
    for layer, pattern in enumerate(patterns):
        expected = cache[f"blocks.{layer}.attn.hook_pattern"]
        torch.testing.assert_close(pattern.detach(), expected, rtol=0, atol=1e-9)
    assert head_scores(bridge).matching.shape == (3, 2)


def test_generation_with_the_write_equals_teacher_forcing():
    network = small_network(1)
    model = small_model(network, "true")
    prompt = texts(1, 4)
    made = li.generate(model.bridge, prompt, model.patch, max_new_tokens=8)
    tokens = torch.cat([prompt, made.tokens], dim=1)
    logits = li.teacher_forced_logits(model.bridge, tokens, model.patch)
    assert torch.equal(logits[:, 3:-1].argmax(-1), made.tokens)
    assert not torch.equal(made.tokens, li.generate(model.bridge, prompt, max_new_tokens=8).tokens)


@pytest.mark.parametrize("entry", [None, 0, 1, 2])
def test_a_step_costs_what_torch_counts(entry):
    network, tokens = small_network(entry or 0), texts(2, SHAPE.context)
    source = written_tokens("none" if entry is None else "true", tokens, 0, SEEDS)
    # Torch counts no operations of its fused attention on a CPU.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        mean_nats(network(tokens, source), tokens).backward()
    assert step_flops(SHAPE, entry, len(tokens)) == counted.get_total_flops()


def test_an_entry_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        Network(SHAPE, 3, 0)
