"""Components along directions of tokens: against loops, and what random directions match."""

import math

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.lens.unlikely_pool import Matching
from lens_interventions.lens.unlikely_tokens import GROUPS, MEASURES, unlikely_components
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts
from tests.support.tiny import shared_bridge, tiny_bridge

BELOW = 1e-3

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_the_statistics_are_those_of_loops_over_positions_and_directions(arch):
    bridge = shared_bridge(arch)
    texts = random_texts(2, length=7)
    with left_as_found(bridge):
        found = unlikely_components(
            bridge, texts, below=BELOW, directions=20, likely=3, seed=4, progress=False
        )
    matching = Matching.of(readout(bridge))
    for number, text in enumerate(texts):
        logits, cache = bridge.run_with_cache(text[None])
        names = [f"blocks.{layer}.hook_resid_pre" for layer in range(3)]
        streams = [cache[name][0, 1:].detach() for name in (*names, "blocks.2.hook_resid_post")]
        log_probs = logits[0, 1:].detach().log_softmax(-1)
        pairs = {group: [] for group in GROUPS}
        kinds = ("tokens", "random directions")
        for kind, pool in zip(kinds, matching.draw(20, 4 + number), strict=True):
            raw = bridge.ln_final(streams[-1][None])[0].detach() @ pool.read.weight.T
            if pool.read.bias is not None:
                raw = raw + pool.read.bias
            given = raw - logits[0, 1:].detach().logsumexp(-1, keepdim=True)
            for position in range(6):
                for direction in range(20):
                    low = float(given[position, direction]) < math.log(BELOW)
                    name = f"{'unlikely' if low else 'possible'} {kind}"
                    pairs[name].append((position, pool.directions[direction]))
        read = readout(bridge)
        for position in range(6):
            for token in log_probs[position].topk(3).indices:
                direction = read.unit_directions(read.weight[token])
                pairs["likeliest tokens"].append((position, direction))
        last = streams[-1] - streams[-1].mean(0)
        for point, stream in enumerate(streams):
            rows = stream - stream.mean(0)
            for group, members in pairs.items():
                here = [float(rows[i] @ d) for i, d in members]
                there = [float(last[i] @ d) for i, d in members]
                lengths = [float(rows[i] @ rows[i]) for i, _ in members]
                size = 32 * np.square(here) / lengths
                expected = np.mean(size), np.dot(here, there) / np.dot(here, here)
                values = found.values[:, GROUPS.index(group), point, number]
                # Pools are drawn in float64 but their covariance is summed in float32.
                np.testing.assert_allclose(values, expected, rtol=1e-6)
    frame = found.to_dataframe()
    assert len(frame) == len(MEASURES) * len(GROUPS) * 4
    assert frame[(frame.statistic == MEASURES[1]) & (frame.point == "final_post")][
        "mean"
    ].to_numpy() == pytest.approx(1)
    lines = [trace for trace in found.plot().data if trace.name]
    assert list(lines[0].y) == pytest.approx(frame["mean"][1:4].tolist(), abs=5e-6)  # no input


def test_random_directions_are_as_long_as_those_of_tokens_and_lie_among_them():
    bridge = tiny_bridge("llama")
    # Tokens of many lengths, in four dimensions.
    bridge.original_model.lm_head.weight.copy_(
        torch.randn(112, 4).exp() @ torch.randn(4, 32) * torch.rand(112, 1)
    )
    read = readout(bridge)
    tokens, random = Matching.of(read).draw(112, 0)
    lengths = [read.token_directions(pool.read.weight).norm(dim=-1) for pool in (tokens, random)]
    torch.testing.assert_close(*lengths)
    outside = torch.linalg.svd(tokens.directions)[2][4:]
    # The covariance is summed in float32, and its root has half the digits.
    assert float((random.directions @ outside.T).abs().max()) < 0.01


def test_random_directions_are_the_same_under_autocast():
    read = readout(tiny_bridge("llama", dtype=torch.float32))  # autocast leaves float64 alone
    _, expected = Matching.of(read).draw(112, 0)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = Matching.of(read).draw(112, 0)
    torch.testing.assert_close(found.read.weight, expected.read.weight)


def test_random_directions_vary_as_those_of_tokens():
    bridge = tiny_bridge("llama")
    spread = torch.linspace(0.2, 3, 32)
    bridge.original_model.lm_head.weight.copy_(torch.randn(112, 32) * spread + spread)
    matching = Matching.of(readout(bridge))
    tokens = matching.draw(112, 0)[0].directions
    random = torch.cat([matching.draw(112, seed)[1].directions for seed in range(20)])
    along = [(rows.square().mean(0)) for rows in (tokens, random)]
    assert float(along[0].max() / along[0].min()) > 10
    torch.testing.assert_close(along[1], along[0], rtol=0.2, atol=0.005)


def test_random_directions_scatter_around_the_mean_of_those_of_tokens():
    """Most rows lie close together and a few far off, so the mean direction is not 0."""
    bridge = tiny_bridge("llama")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(112, 32, generator=generator) * torch.linspace(0.2, 1, 32)
    rows[:100, :4] += 1.0
    rows[100:, :4] -= 8.0
    bridge.original_model.lm_head.weight.copy_(rows)
    gain = bridge.original_model.model.norm.weight.detach().double().numpy()
    raw = rows.double().numpy() - rows.double().numpy().mean(0)
    divided = raw / np.linalg.norm(raw * gain, axis=1, keepdims=True)
    directions = divided * gain
    mean = directions.mean(0)
    assert np.linalg.norm(mean) > 0.3

    matching = Matching.of(readout(bridge))
    spread = matching.spread.numpy() * gain
    # Products are summed in float32.
    np.testing.assert_allclose(spread.T @ spread, np.cov(directions.T, bias=True), atol=1e-6)
    random = torch.cat([matching.draw(112, seed)[1].directions for seed in range(40)]).numpy()
    # Other draws of the same distribution in numpy, made to the length of a direction.
    rng = np.random.default_rng(0)
    expected = rng.multivariate_normal(mean, np.cov(directions.T, bias=True), 4480, method="eigh")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    # Five standard errors of a difference of two means of 4,480 coordinates.
    error = np.sqrt((random.var(0) + expected.var(0)) / 4480).max()
    np.testing.assert_allclose(random.mean(0), expected.mean(0), atol=5 * error)
    # Entries are of up to 0.06, and their standard errors about a fiftieth of it.
    np.testing.assert_allclose(np.cov(random.T), np.cov(expected.T), atol=0.01)


def test_what_a_middle_point_writes_along_unlikely_tokens_is_seen():
    bridge = tiny_bridge("llama")
    for name, parameter in bridge.original_model.named_parameters():
        if "o_proj" in name or "down_proj" in name:
            parameter.zero_()  # so that no block answers to what is written
    read = readout(bridge)
    texts = random_texts(2, length=12)

    def measure():
        found = unlikely_components(bridge, texts, below=BELOW, directions=112, progress=False)
        size, left = found.values[:, :2].mean(-1)
        return size[0] - size[1], left[0]

    before, _ = measure()
    log_probs = bridge(torch.stack(texts)).log_softmax(-1)
    never = (log_probs < math.log(BELOW)).double().mean((0, 1)).topk(6).indices
    written = 20 * torch.randn(12, 6).double() @ read.unit_directions(read.weight[never])

    def write(tensor, hook):
        return tensor + written

    def take_back(tensor, hook):
        return tensor - written

    hooks = [("blocks.1.hook_resid_pre", write), ("blocks.2.hook_resid_pre", take_back)]
    with bridge.hooks(fwd_hooks=hooks):
        after, left = measure()
    assert after[1] > before[1] + 0.1
    # No block changes anything, so that but for what is taken back all arrives at the output.
    assert left[1] < 0.1
    assert left[2] == pytest.approx(1)


def test_what_cannot_be_measured_is_refused():
    bridge = shared_bridge("llama")
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        unlikely_components(bridge, random_texts(1), below=2, progress=False)
    with pytest.raises(ValueError, match="no text has two different tokens after the first 1"):
        # Equal tokens have equal residuals here, so their differences are rounding.
        unlikely_components(bridge, [[5, 6], [5, *[6] * 7]], progress=False)
    with pytest.raises(TypeError, match="put it in a list"):
        unlikely_components(bridge, "the quick fox", progress=False)


def test_every_row_of_a_tensor_is_a_text():
    bridge, texts = shared_bridge("llama"), random_texts(3, length=7)
    options = {"below": BELOW, "directions": 20, "likely": 3, "progress": False}
    alone = unlikely_components(bridge, texts, **options)
    together = unlikely_components(bridge, [torch.stack(texts)], **options)
    np.testing.assert_array_equal(together.values, alone.values)
    for wrong in ("directions", "likely"):
        with pytest.raises(ValueError, match=f"{wrong} must be at least 1, got 0"):
            unlikely_components(bridge, texts, **options | {wrong: 0})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "model.layers.1.mlp.down_proj",
            r"stream is not finite .* at 2_pre, at position 1 of",
        ),
        ("lm_head", "the unembedding is not finite"),
    ],
)
def test_weights_that_are_no_numbers_are_named(part, message):
    bridge = tiny_bridge("llama")
    bridge.original_model.get_submodule(part).weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=message):
        unlikely_components(bridge, random_texts(1), progress=False)
    if part == "lm_head":
        with pytest.raises(ValueError, match="some tokens are not finite"):
            li.embedding_basis(bridge, "unembedding")
