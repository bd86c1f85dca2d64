"""What training returns: a patch for every way of running one, and a figure."""

import numpy as np
import pytest
import torch

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.small_training import (
    random_texts,
    train,
)
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


def test_every_way_of_running_what_was_trained():
    bridge = tiny_bridge("llama")
    with left_as_found(bridge):
        texts = random_texts(4)
        result = train(bridge, texts, held_out=texts, layer=(0, 2), source="shuffled", steps=12)
    assert result.settings["best_step"] > 0
    whole = random_tokens(1, 6)
    new = li.generate(bridge, whole, result.patch, max_new_tokens=5, stop_at_eos=False)
    whole = torch.cat([whole, new.tokens], dim=1)
    log_probs = li.teacher_forced_log_probs(bridge, whole, result.patch)
    torch.testing.assert_close(new.log_probs, log_probs[:, 5:], rtol=0, atol=1e-9)
    logits = li.teacher_forced_logits(bridge, whole, result.patch)[:, -1]
    hooks = result.patch.fwd_hooks(bridge, whole)
    torch.testing.assert_close(
        bridge.run_with_hooks(whole, fwd_hooks=hooks)[:, -1], logits, rtol=0, atol=1e-9
    )
    none = li.teacher_forced_logits(bridge, whole, None)[:, -1]
    assert (logits - none).abs().max() > 1e-3


def test_its_figure_shows_both_curves():
    result = train(shared_bridge("llama"))
    figure = result.plot(theme="dark")
    for trace, frame in zip(figure.data, (result.curve, result.held_out), strict=True):
        assert list(trace.x) == frame["step"].tolist()
        # Figures keep five decimals.
        np.testing.assert_allclose(trace.y, frame["change"], rtol=0, atol=5.1e-6)
    assert "layer 1, source true" in figure.layout.title.text
