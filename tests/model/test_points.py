"""Which residual points are read, and what they are called."""

import pytest
import torch

from lens_interventions.model.points import (
    chosen_layers,
    hook_name,
    point_labels,
    point_layer,
    select_points,
)
from tests.support.tiny import shared_bridge


def test_labels_are_transformer_lenss():
    bridge = shared_bridge("llama")
    _, cache = bridge.run_with_cache(bridge.to_tokens("the fox"))
    _, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    assert point_labels(3, incl_mid=True) == labels


def test_every_label_names_a_hook():
    bridge = shared_bridge("llama")
    for label in point_labels(3, incl_mid=True):
        assert hook_name(label, 3) in bridge.hook_dict


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["0_pre", "1_pre", "2_pre", "3_pre", "4_pre", "5_pre", "final_post"]),
        ({"include_input": False, "every": 2}, ["1_pre", "3_pre", "5_pre", "final_post"]),
        ({"include_input": False, "every": 4}, ["1_pre", "5_pre", "final_post"]),
        ({"points": [0, -1, "3_mid", 3]}, ["0_pre", "3_pre", "3_mid", "final_post"]),
        ({"points": [0, -1, 2, 4, 2], "every": 2}, ["0_pre", "4_pre", "final_post"]),
        (
            {"points": ["blocks.0.hook_resid_pre", "blocks.3.hook_resid_mid"]},
            ["0_pre", "3_mid"],
        ),
        ({"points": ["blocks.5.hook_resid_post"]}, ["final_post"]),
        ({"points": ["final", "input", 2]}, ["0_pre", "2_pre", "final_post"]),
        ({"points": slice(4, None)}, ["4_pre", "5_pre", "final_post"]),
        ({"points": [1, 6], "incl_mid": True}, ["1_pre", "1_mid", "final_post"]),
    ],
)
def test_selection(options, expected):
    assert list(select_points(6, **options)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": [7]}, "residual point 7 does not exist"),
        ({"points": ["6_pre"]}, "unknown residual point '6_pre'"),
        ({"points": ["1_post"]}, "what leaves block 1 is '2_pre'"),
        ({"points": ["5_post"]}, "what leaves block 5 is 'final_post'"),
        ({"points": ["6_post"]}, "points are"),
        # A hook may change the stream between the two.
        ({"points": ["blocks.1.hook_resid_post"]}, "what leaves block 1 is '2_pre'"),
        ({"points": ["blocks.6.hook_resid_pre"]}, r"unknown residual point 'blocks\.6\.hook_resid"),
        ({"points": ["blocks.1.hook_mlp_out"]}, r"unknown residual point 'blocks\.1\.hook_mlp"),
        ({"points": [0], "include_input": False}, "no residual point is left"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_unknown_points_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        select_points(6, **options)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": [1.0]}, "is a label, such as '0_pre', or a whole number; got 1.0"),
        ({"points": [None]}, "is a label, .* got None"),
        ({"points": 1.0}, r"for one point: \[1.0\]"),
        ({"every": 1.5}, "every must be a whole number, got 1.5"),
    ],
)
def test_points_of_another_type_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        select_points(4, **options)


@pytest.mark.parametrize("layers", [[2, 0, 2], iter([2, 0]), torch.tensor([2, 0])])
@pytest.mark.usefixtures("as_users_run")
def test_layers_are_kept_in_their_order_each_once(layers):
    assert chosen_layers(layers, 3) == (2, 0)
    assert chosen_layers(None, 3) == (0, 1, 2)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (1, TypeError, r"layers must be a list of whole numbers, such as \[0, 2\]; got 1$"),
        ([0.5], TypeError, r"layers must be a list .* got \[0.5\]"),
        ("12", TypeError, "layers must be a list .* got '12'"),
        ([], ValueError, r"the model has blocks 0 to 2, but layers are \[\]: give one or more"),
        ([0, 3], ValueError, r"the model has blocks 0 to 2, but layers are \[0, 3\]"),
        ([-1], ValueError, r"layers are \[-1\]"),
    ],
)
def test_layers_that_no_model_has_are_named(layers, error, message):
    with pytest.raises(error, match=message):
        chosen_layers(layers, 3)


def test_layer_of_a_point():
    assert [point_layer(label, 3) for label in point_labels(3)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="lies inside a block"):
        point_layer("1_mid", 3)
