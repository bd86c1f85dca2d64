"""Recovery against ranks over the whole vocabulary, and its figure against its numbers."""

import numpy as np
import pytest
import torch

from lens_interventions.fitting.input_probe import fit_input_probe, input_embeddings
from lens_interventions.fitting.input_recovery import MAPS, RARITY_EDGES, input_recovery
from lens_interventions.model.residuals import text_residuals
from tests.support.corpora import random_texts, residual_rows
from tests.support.tiny import shared_bridge


def unit(rows):
    return rows / np.sqrt((rows**2).mean(-1, keepdims=True))


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


def test_a_half_precision_model_is_ranked_without_ties():
    """In bfloat16, tokens that are nearly as close as the input would share its rank."""
    bridge = shared_bridge("llama", torch.bfloat16)
    probe = fit_input_probe(bridge, random_texts(30), progress=False)
    texts = random_texts(6, seed=5)
    recovery = input_recovery(bridge, probe, texts, progress=False, maps=["own"])
    table = input_embeddings(bridge).double()
    table = table / table.norm(dim=-1, keepdim=True)
    for number, text in enumerate(texts):
        streams = text_residuals(bridge, text, probe.points, first=1)
        for point, (label, stream) in enumerate(zip(probe.points, streams, strict=True)):
            scores = probe(stream, label).double() @ table.T
            rank = (scores > scores.gather(1, text[1:, None])).sum(-1)
            assert recovery.totals[0, 0, point, -1, number] == (rank == 0).sum()


def test_residuals_that_are_not_finite_are_refused():
    """No logit is above one that is no number, so each token would rank first."""
    bridge = shared_bridge("llama")
    probe = fit_input_probe(bridge, random_texts(30), progress=False)

    def overflow(resid, hook):
        return resid.index_fill(1, torch.tensor([4]), torch.inf)

    with (
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", overflow)]),
        pytest.raises(ValueError, match=r"not finite .* at 1_pre, at position 4 of 24 tokens"),
    ):
        input_recovery(bridge, probe, random_texts(6, seed=5), progress=False)


@pytest.mark.parametrize("number", [0, 1])
def test_one_map_alone_is_that_of_both(number):
    bridge = shared_bridge("llama")
    probe = fit_input_probe(bridge, random_texts(60), progress=False)
    both = input_recovery(bridge, probe, random_texts(6, seed=5), progress=False)
    alone = input_recovery(
        bridge, probe, random_texts(6, seed=5), maps=MAPS[number : number + 1], progress=False
    )
    np.testing.assert_array_equal(alone.totals[:, 0], both.totals[:, number])
    frame = alone.to_dataframe()
    assert set(frame["map"]) == {MAPS[number]}
    names = [trace.name for trace in alone.plot().data if trace.name]
    assert set(names) < {trace.name for trace in both.plot().data}


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
    with pytest.raises(ValueError, match=r"maps must be some of own, shared, each once; got \(\)"):
        input_recovery(bridge, probe, random_texts(2), maps=(), progress=False)
    with pytest.raises(ValueError, match=r"each once; got \('own', 'own'\)"):
        input_recovery(bridge, probe, random_texts(2), maps=("own", "own"), progress=False)
    with pytest.raises(ValueError, match="no map at '3_mid'; its points are"):
        probe(torch.zeros(1, 32, dtype=torch.float64), "3_mid")


def test_every_row_of_a_tensor_is_a_text():
    bridge, texts = shared_bridge("llama"), random_texts(6, seed=5)
    probe = fit_input_probe(bridge, random_texts(60), progress=False)
    alone = input_recovery(bridge, probe, texts, progress=False)
    together = input_recovery(bridge, probe, [torch.stack(texts[:4]), *texts[4:]], progress=False)
    np.testing.assert_array_equal(together.totals, alone.totals)
    assert together.counts[-1].tolist() == [23] * 6
    with pytest.raises(ValueError, match="skip_first must be at least 0, got -1"):
        input_recovery(bridge, probe, texts, skip_first=-1, progress=False)
