"""Layers and positions as they are written on a command line."""

import pytest

from lens_interventions.cli.selections import parse_layers, parse_positions


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("0:30:2", slice(0, 30, 2)),
        (":", slice(None, None)),
        ("-4:", slice(-4, None)),
        ("0,5,final", [0, 5, "final"]),
        ("input, 3_mid,-1", ["input", "3_mid", -1]),
        ("7", [7]),
    ],
)
def test_layers_as_they_are_written(text, points):
    assert parse_layers(text) == points


def test_positions_as_they_are_written():
    assert parse_positions("-20:") == slice(-20, None)
    assert parse_positions("0, 5,-1") == [0, 5, -1]
    assert parse_positions("0:9:2") == slice(0, 9, 2)
    with pytest.raises(ValueError, match="positions go forwards"):
        parse_positions("0:9:-1")
    with pytest.raises(ValueError, match="a step cannot be 0"):
        parse_positions("::0")
