"""A training that multiplies by the faster product learns the same, and goes on so."""

import pytest
import torch
from torch import nn

import lens_interventions as li
from lens_interventions.intervention.training import loop, loss
from lens_interventions.model import product as product_module
from lens_interventions.model import product_trials
from tests.support.clean import left_as_found
from tests.support.small_training import assert_same_bits, random_texts, train
from tests.support.stopped import stopped
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


def decided(monkeypatch, faster):
    """Processors differ in what is faster."""
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, _rows: faster)


@pytest.mark.parametrize("adapt", [None, "attention"])
@pytest.mark.parametrize("arch", ["llama", "gemma2"])
def test_it_learns_what_plain_products_teach(monkeypatch, arch, adapt):
    bridge, taken = shared_bridge(arch, torch.float32), set()
    options = {"steps": 3, "texts": random_texts(), "adapt": adapt}
    decided(monkeypatch, faster=False)
    plain = train(bridge, **options)
    patched_losses = loss.patched_losses

    def watched(bridge, bound, *args, **kwargs):
        linears = (m for m in bridge.original_model.modules() if type(m) is nn.Linear)
        blocks = any("forward" in vars(module) for module in linears)
        taken.add((blocks, bound.readout.fast, bound.readout.constant))
        return patched_losses(bridge, bound, *args, **kwargs)

    monkeypatch.setattr(loop, "patched_losses", watched)
    decided(monkeypatch, faster=True)
    with left_as_found(bridge):
        found = train(bridge, **options)
    assert taken == {(adapt is None, True, True)}
    # Products of float32 round in another order.
    for column in ("loss", "gradient_norm"):
        assert found.curve[column].tolist() == pytest.approx(plain.curve[column].tolist(), rel=1e-3)
    assert found.held_out["loss"].tolist() == pytest.approx(
        plain.held_out["loss"].tolist(), rel=1e-3
    )


@pytest.mark.parametrize("faster", [True, False])
def test_it_goes_on_with_the_products_that_it_began_with(monkeypatch, tmp_path, faster):
    bridge = shared_bridge("llama", torch.float32)
    decided(monkeypatch, faster)
    whole = train(bridge, steps=6)
    with left_as_found(bridge), stopped(loop.WriteTraining, "_step", call=3):
        train(bridge, steps=6, checkpoint=tmp_path / "training", save_every=1)
    decided(monkeypatch, not faster)
    finished = train(bridge, steps=6, checkpoint=tmp_path / "training", save_every=1)
    assert_same_bits(finished.write, whole.write)
    assert finished.curve.equals(whole.curve)


def test_a_shared_store_keeps_what_other_products_read_apart(monkeypatch):
    bridge, store = shared_bridge("llama", torch.float32), li.ResidualStore()
    # Products of matrices as small as these may round alike, so one is off in its last place.
    multiply = product_module._multiply
    monkeypatch.setattr(product_module, "_multiply", lambda *args: multiply(*args) * (1 + 2.0**-23))
    decided(monkeypatch, faster=True)
    alone = train(bridge, steps=3)
    decided(monkeypatch, faster=False)
    train(bridge, steps=3, store=store)
    decided(monkeypatch, faster=True)
    assert train(bridge, steps=3, store=store).curve.equals(alone.curve)
