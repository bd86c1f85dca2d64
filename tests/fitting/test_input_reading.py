"""Where a probe finds the input, against loops, and where it was planted."""

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions.fitting.embedding_basis import EmbeddingBasis, embedding_basis
from lens_interventions.fitting.input_probe import fit_input_probe
from lens_interventions.fitting.input_reading import MEASURES, InputReading, input_reading
from lens_interventions.measures.intervals import mean_interval
from lens_interventions.measures.pairwise import pairwise_values
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts, residual_rows
from tests.support.tiny import shared_bridge, tiny_bridge, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def probe():
    return fit_input_probe(shared_bridge("llama"), random_texts(20), progress=False)


def naive(bridge, probe, texts, directions):
    """The three measures `[measure, point, component, text]`, a token at a time."""
    per_text = []
    for text in texts:
        rows = residual_rows(bridge, [text])
        per_text.append([r / np.sqrt((r**2).mean(-1, keepdims=True)) for r in rows])
    found = np.zeros((3, 4, len(directions), len(texts)))
    for point in range(4):
        weight = probe.weight[point].numpy()
        xs = [streams[point] - streams[point].mean(0) for streams in per_text]
        sums = [sum(np.outer(row, row @ weight) for row in x) for x in xs]
        for number, x in enumerate(xs):
            others = sum(sums[:number] + sums[number + 1 :])
            y = x @ weight
            for component, d in enumerate(directions):
                found[0, point, component, number] = (
                    (d @ sums[number]) @ (d @ others) / (sums[number] * others).sum()
                )
                terms = [(row @ d) * (d @ weight) @ out for row, out in zip(x, y, strict=True)]
                found[1, point, component, number] = sum(terms) / (y**2).sum()
                found[2, point, component, number] = ((x @ d) ** 2).sum() / (x**2).sum()
    return found


@pytest.mark.parametrize("kind", ["unembedding", "nmf"])
def test_the_shares_are_those_of_loops_over_tokens(kind, probe):
    bridge, texts = shared_bridge("llama"), random_texts(3, length=9, seed=5)
    basis = embedding_basis(bridge, kind, n_components=4 if kind == "nmf" else None)
    with left_as_found(bridge):
        reading = input_reading(bridge, probe, texts, basis, progress=False)
    expected = naive(bridge, probe, texts, basis.directions.double().numpy())
    np.testing.assert_allclose(reading.shares, expected, rtol=0, atol=1e-9)
    if kind == "unembedding":
        np.testing.assert_allclose(reading.shares.sum(2), 1, atol=1e-9)
    frame = reading.to_dataframe()
    half = len(basis.directions) // 2
    row = frame[(frame.measure == MEASURES[1]) & (frame.point == "2_pre") & (frame.part == 1)]
    assert row["mean"].item() == pytest.approx(expected[1, 2, half:].sum(0).mean())
    own = frame[(frame.measure == MEASURES[0]) & (frame.point == "2_pre") & (frame.part == 1)]
    interval = mean_interval(
        pairwise_values(expected[0, 2, half:].sum(0)), rng=np.random.default_rng(0)
    )
    assert own[["mean", "low", "high"]].to_numpy()[0] == pytest.approx(
        [interval.estimate, interval.low, interval.high], abs=1e-6
    )
    lines = [trace for trace in reading.plot().data if trace.name]
    assert [len(line.y) for line in lines] == [4, 4, 4]
    assert lines[1].y[2] == pytest.approx(row["mean"].item(), abs=5e-6)


def test_an_input_kept_where_the_output_looks_is_found_there():
    """Token embeddings fill the half that the unembedding reads, positions fill the other."""
    model = tiny_model("gpt2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "c_proj" in name:
                parameter.zero_()
        model.transformer.wte.weight[:, :16] = 0
        model.transformer.wpe.weight[:, 16:] = 0
    bridge = TransformerBridge.boot_transformers(
        "tiny", hf_model=model, dtype=torch.float64, device="cpu", tokenizer=tiny_tokenizer()
    )
    texts = random_texts(60)
    probe = fit_input_probe(bridge, texts, progress=False)
    reading = input_reading(
        bridge, probe, texts[:6], embedding_basis(bridge, "unembedding"), progress=False
    )
    lies, read, stream = reading.part(16, 32).mean(-1)
    assert lies.max() < 0.05
    assert read.max() < 0.1
    assert stream.min() > 0.3


def test_what_cannot_be_read_is_refused(probe):
    bridge, texts = shared_bridge("llama"), random_texts(3)
    basis = embedding_basis(bridge)
    with pytest.raises(ValueError, match=r"2 of them have two different .* give three or more"):
        input_reading(bridge, probe, [*texts[:2], [5, 6], [5, *[6] * 7]], basis, progress=False)
    narrow = EmbeddingBasis("pca", torch.eye(8), torch.ones(8) / 8, (("a",),) * 8)
    with pytest.raises(ValueError, match="of width 8, the model has 32"):
        input_reading(bridge, probe, texts, narrow, progress=False)
    with pytest.raises(ValueError, match="was fitted for tiny-llama"):
        input_reading(tiny_bridge("llama", seed=5), probe, texts, basis, progress=False)
    reading = input_reading(bridge, probe, texts, basis, progress=False)
    with pytest.raises(ValueError, match="between 1 and the 32 components, got 40"):
        reading.to_dataframe(parts=40)
    one = EmbeddingBasis("pca", torch.eye(32)[:1], torch.ones(1), (("a",),))
    with pytest.raises(ValueError, match="needs two components or more; this one has 1"):
        InputReading(one, ("0_pre",), np.ones((3, 1, 1, 4))).plot()
