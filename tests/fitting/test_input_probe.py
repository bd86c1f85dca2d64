"""The input probe against ridge regression on materialized residuals, and on known truths."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting import corpus_moments
from lens_interventions.fitting.input_probe import InputProbe, fit_input_probe, unit_size
from lens_interventions.fitting.input_recovery import input_recovery
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts, residual_rows
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


def test_a_residual_whose_squares_overflow_half_precision_keeps_its_direction():
    read = unit_size(torch.tensor([[3000.0, 4000.0], [0.0, 0.0]], dtype=torch.float16))
    expected = torch.tensor([[3.0, 4.0], [0.0, 0.0]]) / 12.5**0.5
    torch.testing.assert_close(read, expected.half())


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
