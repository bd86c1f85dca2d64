"""Bases of the stream against scikit-learn, and a factorization that was planted."""

import importlib.util

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lens_interventions.fitting.embedding_basis import embedding_basis
from tests.support.tiny import shared_bridge, tiny_bridge


def test_principal_components_are_scikit_learn_s():
    bridge = shared_bridge("llama")
    basis = embedding_basis(bridge, "pca")
    expected = PCA().fit(bridge.W_E.detach().numpy())
    cosines = (basis.directions.numpy() * expected.components_).sum(-1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-9)
    np.testing.assert_allclose(basis.importance, expected.explained_variance_ratio_, atol=1e-9)
    assert len(basis.tokens) == 32
    amounts = (bridge.W_E.detach() - bridge.W_E.detach().mean(0)) @ basis.directions[0]
    assert basis.tokens[0][0] == bridge.tokenizer.decode([int(amounts.argmax())])


def test_the_unembedding_s_come_in_the_order_in_which_logits_respond():
    bridge = shared_bridge("gpt2")
    basis = embedding_basis(bridge, "unembedding", n_components=31)  # a LayerNorm loses one
    table = (bridge.W_U.detach().T - bridge.W_U.detach().mean(-1)) * bridge.ln_final.w.detach()
    table = table - table.mean(-1, keepdim=True)
    responses = (table @ basis.directions.T).square().sum(0)
    assert (responses.diff() <= 1e-9).all()
    torch.testing.assert_close(responses / table.square().sum(), basis.importance)
    torch.testing.assert_close(basis.directions @ basis.directions.T, torch.eye(31).double())


def test_a_planted_factorization_is_found():
    """Tokens are multiples of three directions and of their opposites: six components."""
    planted = torch.zeros(3, 32, dtype=torch.float64)
    for number, row in enumerate(planted):
        row[10 * number : 10 * number + 10] = torch.randn(10).double()
    planted = torch.nn.functional.normalize(planted, dim=-1)
    bridge = tiny_bridge("llama")
    amounts = torch.rand(56, 1).double() * planted[torch.arange(56) % 3]
    with torch.no_grad():
        bridge.original_model.model.embed_tokens.weight.copy_(torch.cat([amounts, -amounts]))
    basis = embedding_basis(bridge, "nmf", n_components=6)
    cosines = basis.directions @ planted.T
    best = cosines.abs().max(-1)
    assert best.values.min() > 0.999
    signs = cosines.gather(1, best.indices[:, None]).sign()[:, 0].tolist()
    found = set(zip(best.indices.tolist(), signs, strict=True))
    assert found == {(n, sign) for n in range(3) for sign in (1.0, -1.0)}
    assert float(basis.importance.sum()) == pytest.approx(1, abs=0.01)
    assert (basis.importance.diff() <= 0).all()


@pytest.mark.usefixtures("as_users_run")
def test_what_cannot_be_made_is_refused(monkeypatch):
    bridge = shared_bridge("llama")
    with pytest.raises(ValueError, match="one of pca, nmf, unembedding; got 'svd'"):
        embedding_basis(bridge, "svd")
    with pytest.raises(ValueError, match="between 1 and d_model = 32, got 33"):
        embedding_basis(bridge, "pca", n_components=33)
    with pytest.raises(ValueError, match="between 1 and d_model = 32, got 0"):
        embedding_basis(bridge, "nmf", n_components=0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeError, match=r'pip install "\.\[nmf\]"'):
        embedding_basis(bridge, "nmf")
