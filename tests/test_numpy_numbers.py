"""Numbers of numpy do where Python's do, as users run the library."""

import numpy as np
import pandas as pd
import pytest

import lens_interventions as li
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("as_users_run")

BRIDGE = shared_bridge("llama")
PATCH = li.NextTokenPatch(layer=1, strength=0.5)


def test_whole_numbers_of_numpy_are_whole_numbers():
    four, one = np.int64(4), np.int64(1)
    texts = [[5, 17, 4, 44, 9, 20, 7, 8, 11]] * 10
    still = {"progress": False}
    options = {"window": four, "batch_size": one, "held_out_windows": one, "evaluate_every": one}
    lens = li.fit_affine_lens(BRIDGE, texts, window=four, holdout=np.int64(2), **still)
    refined = {"steps": one, "batch": four, "held_out": four, "window": four, "seed": one}
    loss, same = (
        li.patch_loss(BRIDGE, texts, PATCH, max_length=n, **still).to_dataframe() for n in (four, 4)
    )
    pd.testing.assert_frame_equal(loss, same)
    for call in (
        lambda: li.slope_map(BRIDGE, texts, max_length=four, **still),
        lambda: li.train_patch(
            BRIDGE,
            texts,
            layer=1,
            rank=2,
            steps=one,
            options=li.TrainingOptions(**options),
            **still,
        ),
        lambda: li.refine_affine_lens(BRIDGE, lens, texts, **refined, **still),
        lambda: li.embedding_basis(BRIDGE, "nmf", n_components=four, seed=one),
        lambda: li.unlikely_components(BRIDGE, texts, seed=one),
    ):
        call()


def test_numbers_of_numpy_are_kept_with_a_training(tmp_path):
    options = li.TrainingOptions(
        window=4, held_out_windows=1, learning_rate=np.float32(0.01), write_penalty=np.float32(0.1)
    )
    trained = li.train_patch(
        BRIDGE,
        [[5, 17, 4, 44, 9, 20, 7, 8, 11]] * 10,
        layer=1,
        rank=2,
        steps=2,
        options=options,
        checkpoint=tmp_path / "training",
        save_every=1,
        progress=False,
    )
    assert trained.settings["learning_rate"] == float(np.float32(0.01))
