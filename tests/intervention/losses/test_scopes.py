"""Scopes: which predictions a slope is about."""

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.losses import scopes
from tests.support.central_differences import central_difference
from tests.support.tiny import random_tokens

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


def test_scopes_are_sums_over_their_predictions(llama):
    texts = [torch.cat([part := random_tokens(8), part]), random_tokens(10)]

    def last_three(tokens, nats):
        return torch.arange(len(nats)) >= len(nats) - 3

    named = ["all", "copyable", "other", "after_surprise", "repeated_surprise", last_three]
    found = li.slope_map(llama, texts, scopes=named, sources=["true", "random"], progress=False)
    every, copyable, other, _, _, _ = np.moveaxis(found.totals, 1, 0)
    np.testing.assert_allclose(copyable + other, every, rtol=1e-9, atol=1e-12)
    nats = [-li.teacher_forced_log_probs(llama, text, None)[0] for text in texts]
    for place, scope in enumerate([*(scopes.SCOPES[name] for name in named[:-1]), last_three]):
        where = [scope(text, lost) for text, lost in zip(texts, nats, strict=True)]
        assert found.counts[:, place].tolist() == [int(w.sum()) for w in where]
        patch = found.patch(1, strength=0.0)
        expected = central_difference(llama, texts, patch, where)
        np.testing.assert_allclose(
            found.totals[:, place, 0, 0, 0, 1], expected, rtol=1e-6, atol=1e-8
        )


def test_repeats_of_a_surprise():
    tokens = torch.tensor([5, 7, 5, 8, 7, 8, 7])
    nats = torch.tensor([9.0, 1.0, 2.0, 9.0, 1.0, 1.0])
    # 5 stood first at the beginning, 8 came as no surprise; 7 did, and comes again twice.
    assert scopes.repeated_surprise(tokens, nats).tolist() == [
        *(False, False, False),
        *(True, False, True),
    ]
    assert scopes.after_surprise(tokens, nats).tolist() == [
        *(False, True, False),
        *(False, True, False),
    ]


def test_a_scope_gets_copies(llama):
    texts = [random_tokens(12).repeat(2) for _ in range(2)]

    def writes(tokens, nats):
        keep = nats > 3
        nats.zero_()
        tokens.zero_()
        return keep

    patch = li.NextTokenPatch(layer=1, strength=0.1)
    named = ["after_surprise", "repeated_surprise", "copyable"]
    expected = li.patch_loss(llama, texts, patch, scopes=named, progress=False)
    found = li.patch_loss(llama, texts, patch, scopes=[writes, *named], progress=False)
    assert found.counts[:, 1:].tolist() == expected.counts.tolist()
    assert found.losses[:, 1:].tolist() == expected.losses.tolist()


@pytest.mark.parametrize("said", [[True] * 5, np.ones(5, dtype=bool)])
def test_a_scope_returns_a_tensor(llama, said):
    patch = li.NextTokenPatch(layer=1, strength=0.1)
    with pytest.raises(ValueError, match=r"returned (list|ndarray); expected a tensor of bools"):
        li.patch_loss(llama, [random_tokens(6)], patch, scopes=[lambda *_: said], progress=False)


@pytest.mark.usefixtures("as_users_run")
def test_a_scope_alone_is_no_list(llama):
    patch = li.NextTokenPatch(layer=1, strength=0.1)
    with pytest.raises(ValueError, match=r"scopes must be a list, such as \[copyable\]"):
        li.patch_loss(llama, [random_tokens(6)], patch, scopes=scopes.copyable, progress=False)


def test_a_surprise_begins_at_six_nats():
    from lens_interventions.intervention.losses.scopes import SURPRISING, after_surprise

    nats = torch.tensor([SURPRISING, 5.9, 6.1, 0.0])
    assert after_surprise(torch.arange(5), nats).tolist() == [False, True, False, True]
