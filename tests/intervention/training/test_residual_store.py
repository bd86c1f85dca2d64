"""What enters a layer is computed once, for one training and for several."""

import pytest

import lens_interventions as li
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.small_training import (
    assert_same_bits,
    random_texts,
    train,
)
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


def runs_below(bridge, texts, **options):
    """How often block 1 ran in a training of block 2, and what was trained."""
    runs = []
    attention = bridge.blocks[1].attn
    forward = attention.forward

    def counted(*args, **kwargs):
        runs.append(1)
        return forward(*args, **kwargs)

    # Hooks are refused with a store.
    with replaced_forwards([(attention, counted)]):
        result = train(bridge, texts, layer=2, **options)
    return len(runs), result


def test_blocks_below_run_once_for_each_piece():
    bridge, texts = tiny_bridge("llama"), random_texts(12)
    train(bridge, texts, layer=2, steps=1)  # checks that are made once for each model
    once, _ = runs_below(bridge, texts, steps=5)
    again, kept = runs_below(bridge, texts, steps=15)
    assert again == once
    without, recomputed = runs_below(bridge, texts, steps=15, store=li.ResidualStore(gib=0))
    assert without > 2 * once
    assert_same_bits(kept.write, recomputed.write)


def test_a_store_is_shared_between_trainings():
    bridge, store = tiny_bridge("llama"), li.ResidualStore()
    texts = random_texts(12)
    alone, expected = runs_below(bridge, texts, steps=5, source="current")
    train(bridge, texts, layer=2, steps=5, store=store)
    shared, found = runs_below(bridge, texts, steps=5, source="current", store=store)
    assert shared <= alone - 12
    assert_same_bits(found.write, expected.write)
    # What other weights, or other norms, leave is another thing.
    for other in (tiny_bridge("llama", seed=1), tiny_bridge("llama", rms_norm_eps=0.1)):
        assert_same_bits(
            train(other, texts, layer=2, store=store).write, train(other, texts, layer=2).write
        )
    with (
        bridge.hooks(fwd_hooks=[("blocks.0.hook_out", lambda resid, hook: 2 * resid)]),
        pytest.raises(ValueError, match="there are hooks on the bridge"),
    ):
        train(bridge, texts, layer=2, store=store)


def test_a_store_keeps_the_layers_apart():
    bridge, store, texts = shared_bridge("llama"), li.ResidualStore(), random_texts(12)
    for layer in (2, 1):
        shared = train(bridge, texts, layer=layer, steps=2, store=store)
        alone = train(bridge, texts, layer=layer, steps=2)
        assert_same_bits(shared.write, alone.write)
        assert shared.held_out.equals(alone.held_out)
