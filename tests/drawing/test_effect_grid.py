"""Heat maps of effects by layer and strength."""

import numpy as np
import pandas as pd

from lens_interventions.drawing.effect_grid import effect_heatmaps


def table():
    """Two measures, the second of which was measured in one of the two modes."""
    cells = [
        ("copies", "add", 3, 0.1, 0.5),
        ("copies", "add", 3, 0.3, -0.25),
        ("copies", "add", 7, 0.1, 1.5),
        ("copies", "interpolate", 7, 0.1, 2.0),
        ("repeats", "interpolate", 7, 0.1, -3.0),
    ]
    rows = pd.DataFrame(cells, columns=["measure", "mode", "layer", "strength", "estimate"])
    return rows.assign(low=-9.0, high=9.0, p_value=0.01, p_holm=[0.01, 0.9, 0.9, 0.9, 0.9])


def test_each_measure_has_a_panel_for_each_mode_with_its_effects_and_their_texts():
    figure = effect_heatmaps(table(), title="Effects", bars={"copies": "nats", "repeats": "nats"})
    add, interpolate, *repeats = figure.data
    np.testing.assert_array_equal(np.array(add.z, dtype=float), [[0.5, -0.25], [1.5, np.nan]])
    assert (add.y, add.x) == (("3", "7"), ("0.1", "0.3"))
    assert add.text[0] == ["0.5*", "−0.25"]
    assert interpolate.z == ([2.0],)
    assert [trace.visible for trace in figure.data] == [True, True, False, False]
    missing, present = repeats
    assert len(missing.z) == 0
    assert present.z == ([-3.0],)
