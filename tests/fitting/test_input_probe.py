"""The input probe against ridge regression on materialized residuals, and on known truths."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting import corpus_moments
from lens_interventions.fitting.input_probe import InputProbe, fit_input_probe
from lens_interventions.fitting.input_recovery import RARITY_EDGES, input_recovery
from tests.fitting.test_affine_fit import random_texts, residual_rows
from tests.support.clean import left_as_found
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge


def unit(rows):
    return rows / np.sqrt((rows**2).mean(-1, keepdims=True))


@pytest.mark.parametrize("arch", ["gpt2", "gemma2"])
def test_the_maps_are_ridge_regressions_to_the_embedding(arch):
    bridge, texts = shared_bridge(arch), random_texts()
    with left_as_found(bridge):
        probe = fit_input_probe(bridge, texts, progress=False)
    fitted = [text for i, text in enumerate(texts, 1) if i % 10]
    tokens = np.concatenate([text[1:] for text in fitted])
    # As the model feeds them: Gemma multiplies by the square root of its width, kept in float32.
    table = bridge.W_E.detach().numpy() * (float(np.float32(32**0.5)) if arch == "gemma2" else 1)
    targets = (table - table.mean(0))[tokens]
    streams = [unit(rows) for rows in residual_rows(bridge, fitted)]
    problems = [([stream], probe.weight[i], probe.bias[i], probe.settings["ridges"][i])
                for i, stream in enumerate(streams)]  # fmt: skip
    problems.append(
        (streams[1:], probe.shared_weight, probe.shared_bias, probe.settings["shared_ridge"])
    )
    for parts, weight, bias, ridge in problems:
        x = np.hstack([np.vstack(parts), np.ones((len(tokens) * len(parts), 1))])
        y = np.vstack([targets] * len(parts))
        penalty = np.diag(np.sqrt(ridge) * np.linalg.norm(x, axis=0))
        stacked = np.vstack([x, penalty]), np.vstack([y, np.zeros((len(penalty), y.shape[1]))])
        solution = np.linalg.lstsq(*stacked, rcond=None)[0]
        np.testing.assert_allclose(weight, solution[:-1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(bias, solution[-1], rtol=0, atol=1e-9)
    assert np.array_equal(probe.counts, np.bincount(tokens, minlength=D_VOCAB))


def test_recovery_is_what_ranks_over_the_vocabulary_give():
    bridge = shared_bridge("llama")
    probe = fit_input_probe(bridge, random_texts(60), progress=False)
    texts = random_texts(6, seed=5)
    recovery = input_recovery(bridge, probe, texts, progress=False)
    table = bridge.W_E.detach().numpy()
    table = table - table.mean(0)
    table = table / np.linalg.norm(table, axis=-1, keepdims=True)
    rows = residual_rows(bridge, texts)
    tokens = torch.stack(texts)[:, 1:].numpy()
    for point, stream in enumerate(rows):
        for number, shared in enumerate((False, True)):
            weight = (probe.shared_weight if shared else probe.weight[point]).numpy()
            bias = (probe.shared_bias if shared else probe.bias[point]).numpy()
            scores = (unit(stream) @ weight + bias) @ table.T
            own = scores[np.arange(tokens.size), tokens.ravel()]
            rank = (scores > own[:, None]).sum(-1).reshape(tokens.shape)
            expected = [(rank == 0), (rank < 10), np.log10(1 + rank)]
            # In float64 a tie could still fall either way; these texts have none.
            np.testing.assert_allclose(
                recovery.totals[:, number, point, -1], [e.sum(-1) for e in expected], atol=1e-9
            )
    seen = probe.counts.numpy()[tokens]
    for number, low in enumerate(RARITY_EDGES):
        high = RARITY_EDGES[number + 1] if number + 1 < len(RARITY_EDGES) else np.inf
        inside = (seen >= low) & (seen < high)
        assert recovery.counts[number].tolist() == inside.sum(-1).tolist()
    frame = recovery.to_dataframe()
    everything = frame[(frame.rarity == "all") & (frame.measure == "top1")]
    assert len(everything) == 2 * 4
    assert ((everything.low <= everything["mean"]) & (everything["mean"] <= everything.high)).all()


def test_an_input_that_is_never_lost_is_recovered_everywhere():
    """Blocks that write nothing leave the embedding in the stream: all maps can find it."""
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        for name, parameter in bridge.original_model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
    probe = fit_input_probe(bridge, random_texts(120), progress=False)
    recovery = input_recovery(bridge, probe, random_texts(6, seed=5), progress=False)
    shares = recovery.totals[0].sum(-1)[..., -1] / recovery.counts[-1].sum()
    # Embeddings of unequal length come out of a linear map of unit streams only almost parallel.
    assert shares.min() > 0.95
    overlap = probe.overlap(bridge, k=32)
    assert overlap.overlap.to_numpy() == pytest.approx(1)  # all directions are all directions
    assert overlap.chance.to_numpy() == pytest.approx(1)


def test_a_map_that_reads_the_leading_directions_overlaps_with_them():
    bridge = shared_bridge("llama")
    table = bridge.W_E.detach()
    _, _, principal = torch.linalg.svd(table - table.mean(0))
    probe = fit_input_probe(bridge, random_texts(20), progress=False)
    reads_leading = principal[:4].T @ principal[:4]
    reads_last = principal[-4:].T @ principal[-4:]
    object.__setattr__(probe, "weight", torch.stack([reads_leading, reads_last, *probe.weight[2:]]))
    overlap = probe.overlap(bridge, k=4).set_index("point")
    assert overlap.overlap["0_pre"] == pytest.approx(1)
    assert overlap["median"]["1_pre"] == pytest.approx(90)
    assert overlap.chance["0_pre"] == pytest.approx(4 / 32)
    with pytest.raises(ValueError, match="between 1 and d_model = 32"):
        probe.overlap(bridge, k=33)


def test_round_trip_resumption_and_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_moments, "_SECONDS_BETWEEN_SAVES", 0)
    bridge, texts = shared_bridge("llama"), random_texts(30)
    whole = fit_input_probe(bridge, texts, progress=False)
    with pytest.raises(ZeroDivisionError):
        fit_input_probe(
            bridge,
            (text if i < 17 else text / 0 for i, text in enumerate(texts) if i < 17 or 1 / 0),
            checkpoint=tmp_path / "partial",
            progress=False,
        )
    resumed = fit_input_probe(bridge, texts, checkpoint=tmp_path / "partial", progress=False)
    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.counts, whole.counts)
    assert resumed.settings == whole.settings
    whole.save(tmp_path / "probe.safetensors")
    loaded = InputProbe.load(tmp_path / "probe.safetensors")
    assert loaded.points == whole.points
    assert loaded.settings == whole.settings
    assert torch.equal(loaded.weight, whole.weight.half().float())
    with pytest.raises(ValueError, match="was fitted for tiny-llama"):
        input_recovery(tiny_bridge("llama", seed=5), loaded, texts, progress=False)
    with pytest.raises(ValueError, match="no text of more than 1 tokens"):
        input_recovery(bridge, loaded, [[5]], progress=False)
    with pytest.raises(FileNotFoundError):
        InputProbe.load(tmp_path / "none")
    (tmp_path / "bad").write_text("x")
    with pytest.raises(ValueError, match="is not a saved probe"):
        InputProbe.load(tmp_path / "bad")


@pytest.mark.parametrize("by_rarity", [False, True])
def test_the_figure_shows_what_the_frame_holds(by_rarity):
    bridge = shared_bridge("llama")
    probe = fit_input_probe(bridge, random_texts(60), progress=False)
    recovery = input_recovery(bridge, probe, random_texts(6, seed=5), progress=False)
    figure = recovery.plot(by_rarity=by_rarity)
    frame = recovery.to_dataframe()
    groups = dict(list(frame.groupby(["measure", "map", "rarity"])["mean"]))
    lines = [trace for trace in figure.data if trace.mode and "lines" in trace.mode and trace.name]
    seen = [name for name in recovery.rarity[:-1] if name in set(frame.rarity)]
    assert len(lines) == 2 * (len(seen) if by_rarity else 2)
    first = groups["top1", "own", seen[0] if by_rarity else "all"]
    # Figures keep five decimals.
    assert list(lines[0].y) == pytest.approx(first.tolist(), abs=5e-6)


def test_recovery_of_one_text_or_of_no_token_is_refused():
    bridge = shared_bridge("gpt2")
    probe = fit_input_probe(bridge, random_texts(20), progress=False)
    with pytest.raises(TypeError, match="put it in a list"):
        input_recovery(bridge, probe, "the quick brown fox", progress=False)
    with pytest.raises(ValueError, match="max_tokens must be at least 2, got 1"):
        input_recovery(bridge, probe, random_texts(2), max_tokens=1, progress=False)
    with pytest.raises(ValueError, match="no map at '3_mid'; its points are"):
        probe(torch.zeros(1, 32, dtype=torch.float64), "3_mid")
