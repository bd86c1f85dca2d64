"""The pass over a corpus: what it refuses, and how it goes on where it was stopped."""

import numpy as np
import pytest
import torch
import transformers

from lens_interventions.fitting import corpus_moments
from lens_interventions.fitting.affine_fit import fit_affine_lens
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts
from tests.support.tiny import shared_bridge


def test_residuals_that_are_not_finite_are_not_fitted_to():
    bridge, texts = shared_bridge("llama"), random_texts(20)
    runs = []

    def overflow(resid, hook):
        runs.append(len(resid))
        return resid / (len(runs) != 7)

    with (
        left_as_found(bridge),
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", overflow)]),
        pytest.raises(ValueError, match=r"not finite .* at 1_pre, at position 1 of"),
    ):
        fit_affine_lens(bridge, texts, progress=False)


@pytest.mark.usefixtures("as_users_run")
def test_numbers_of_numpy_are_numbers():
    bridge, texts = shared_bridge("llama"), random_texts(40)
    ours, expected = (
        fit_affine_lens(
            bridge, texts, window=kind(12), skip_first=kind(2), holdout=kind(5), progress=False
        )
        for kind in (np.int64, int)
    )
    assert torch.equal(ours.weight, expected.weight)
    assert ours.settings == expected.settings


def test_windows_of_which_nothing_is_left_are_refused():
    with pytest.raises(ValueError, match="skip_first=4 leaves nothing of windows of 4 tokens"):
        fit_affine_lens(
            shared_bridge("llama"), random_texts(4), window=4, skip_first=4, progress=False
        )


class StopError(Exception):
    """What ends a fit in the middle."""


def stopping_after(texts, n):
    yield from texts[:n]
    raise StopError


def test_a_fit_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_moments, "_SECONDS_BETWEEN_SAVES", 0)
    bridge, texts, path = shared_bridge("llama"), random_texts(40), tmp_path / "partial"
    whole = fit_affine_lens(bridge, texts, progress=False)
    with pytest.raises(StopError):
        fit_affine_lens(bridge, stopping_after(texts, 25), checkpoint=path, progress=False)
    with pytest.raises(ValueError, match="made from other texts"):
        fit_affine_lens(bridge, texts[1:], checkpoint=path, progress=False)
    with pytest.raises(ValueError, match="'holdout': 5"):
        fit_affine_lens(bridge, texts, holdout=5, checkpoint=path, progress=False)
    read, plain = [], corpus_moments.text_residuals

    def counted(bridge, piece, labels, **options):
        read.append(piece)
        return plain(bridge, piece, labels, **options)

    monkeypatch.setattr(corpus_moments, "text_residuals", counted)
    resumed = fit_affine_lens(bridge, texts, checkpoint=path, progress=False)
    assert len(read) == 15
    assert torch.equal(resumed.weight, whole.weight)
    assert resumed.settings == whole.settings
    assert whole.settings["versions"]["transformers"] == transformers.__version__
    (tmp_path / "bad").write_text("x")
    with pytest.raises(ValueError, match="is not a saved checkpoint"):
        fit_affine_lens(bridge, texts, checkpoint=tmp_path / "bad", progress=False)
