"""Which residual points are read, and what they are called."""

import pytest

from lens_interventions.model.points import hook_name, point_labels, point_layer, select_points
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
        ({"points": [0], "include_input": False}, "no residual point is left"),
        ({"every": 0}, "every must be at least 1"),
    ],
)
def test_unknown_points_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        select_points(6, **options)


def test_layer_of_a_point():
    assert [point_layer(label, 3) for label in point_labels(3)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="lies inside a block"):
        point_layer("1_mid", 3)
