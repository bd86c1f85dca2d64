"""Directions taken out of a layer, against least squares for each position alone."""

import pytest
import torch
from pandas.testing import assert_frame_equal
from transformer_lens.hook_points import HookPoint

import lens_interventions as li
from lens_interventions.intervention.ablation import ablate_directions, projected
from lens_interventions.intervention.patch import NextTokenPatch
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge

TOKENS = torch.tensor([[5, 9, 33, 71], [20, 8, 64, 7]])
LAYER, POINT = 1, "blocks.1.hook_resid_pre"

pytestmark = pytest.mark.usefixtures("without_gradients")


def changed(hooks):
    """The residual stream after the hooks, and before them."""
    bridge, kept = shared_bridge("llama"), {}

    def keep(tensor, hook):
        kept["after"] = tensor

    with left_as_found(bridge):
        _, cache = bridge.run_with_cache(TOKENS, names_filter=[POINT])
        bridge.run_with_hooks(TOKENS, fwd_hooks=[*hooks, (POINT, keep)])
    return kept["after"], cache[POINT]


def test_a_checkpoint_knows_the_hooks_by_what_they_hold(tmp_path):
    bridge, texts = shared_bridge("llama"), [TOKENS[0], TOKENS[1]]
    directions = torch.randn(1, 32, dtype=torch.float64)

    def loss(layer, held):
        return li.patch_loss(
            bridge,
            texts,
            NextTokenPatch(layer=2, strength=0.3),
            fwd_hooks=ablate_directions(layer, held),
            checkpoint=tmp_path / "sums",
            progress=False,
        )

    first = loss(LAYER, directions)
    assert_frame_equal(loss(LAYER, directions.clone()).to_dataframe(), first.to_dataframe())
    for other in ((LAYER - 1, directions), (LAYER, 2 * directions)):
        with pytest.raises(ValueError, match="differs in"):
            loss(*other)


@pytest.mark.parametrize("shape", [(3, 32), (2, 4, 3, 32)])
def test_the_span_is_set_to_the_mean_s(shape):
    directions = torch.randn(shape, dtype=torch.float64)
    mean = torch.randn(32, dtype=torch.float64)
    after, before = changed(ablate_directions(LAYER, directions, mean=mean))
    for row in range(2):
        for column in range(4):
            own = directions if directions.ndim == 2 else directions[row, column]
            moved = before[row, column] - mean
            along = torch.linalg.lstsq(own.T, moved[:, None]).solution[:, 0] @ own
            torch.testing.assert_close(after[row, column], before[row, column] - along)
            torch.testing.assert_close(own @ after[row, column], own @ mean)


def test_many_directions_and_nearly_parallel_ones_are_all_taken_out():
    many = torch.randn(400, 576)
    alike = torch.randn(576) + 0.2 * torch.randn(100, 576)
    pair = torch.randn(1, 576) + torch.tensor([[0.0], [1e-4]]) * torch.randn(2, 576)
    vectors = torch.randn(3, 576)
    for directions in (many, alike, pair):
        basis = torch.linalg.qr(directions.double().T).Q
        expected = vectors.double() @ basis @ basis.T
        found = projected(vectors, directions).double()
        assert (found - expected).norm() < 1e-6 * vectors.norm()


def test_directions_may_depend_on_each_other_and_rows_of_zeros_take_nothing_out():
    directions = torch.randn(2, 32, dtype=torch.float64)
    twice = torch.cat([directions, directions.sum(0, keepdim=True), torch.zeros(1, 32)])
    once, _ = changed(ablate_directions(LAYER, directions))
    again, before = changed(ablate_directions(LAYER, twice.double()))
    torch.testing.assert_close(again, once)
    nothing, _ = changed(ablate_directions(LAYER, torch.zeros(2, 32, dtype=torch.float64)))
    assert torch.equal(nothing, before)


@pytest.mark.parametrize("ratio", [1e4, 1e30])
def test_a_direction_much_shorter_than_another_is_taken_out_too(ratio):
    directions = torch.eye(4)[:2]
    directions[0, 1] = 0.5
    directions[0] *= ratio
    ((_, take_out),) = ablate_directions(LAYER, directions)
    after = take_out(torch.ones(1, 1, 4), hook=HookPoint())
    torch.testing.assert_close(after[0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_half_precision_keeps_its_type():
    ((_, take_out),) = ablate_directions(LAYER, torch.eye(32)[:2])
    after = take_out(torch.ones(1, 3, 32, dtype=torch.bfloat16), hook=HookPoint())
    assert after.dtype == torch.bfloat16
    assert after.sum(-1).tolist() == [[30.0] * 3]


def test_other_positions_are_refused():
    directions = torch.randn(1, 4, 3, 32, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"given for \[1, 4\].*the run has \[2, 4\]"):
        changed(ablate_directions(LAYER, directions))
