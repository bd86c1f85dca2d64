"""A checkpoint: an interrupted training goes on, and other files are refused."""

import dataclasses

import pytest

from lens_interventions.intervention.training import loop
from tests.intervention.test_learned_write import random_write
from tests.support.clean import left_as_found
from tests.support.small_training import (
    SMALL,
    assert_same_bits,
    random_texts,
    train,
)
from tests.support.stopped import counted, stopped
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


@pytest.mark.parametrize("source", ["true", "random", "zero"])
def test_interrupted_training_ends_in_the_same_bits(monkeypatch, tmp_path, source):
    bridge, path = shared_bridge("llama"), tmp_path / "training"
    options = {
        "source": source,
        "steps": 13,
        "options": dataclasses.replace(SMALL, input_gate=True),
    }
    whole = train(bridge, **options)
    # Stopped before the first checkpoint, and twice after: at steps 2, 5 and 11.
    for begun, step in ((0, 2), (0, 5), (3, 11)):
        with (
            left_as_found(bridge),
            stopped(loop.WriteTraining, "_step", call=step - begun),
        ):
            train(bridge, checkpoint=path, save_every=3, **options)
        assert path.exists() == (step >= 3)
    with counted(loop.WriteTraining, "_step") as steps:
        finished = train(bridge, checkpoint=path, save_every=3, **options)
    assert len(steps) == 13 - 9
    assert_same_bits(finished.write, whole.write)
    assert finished.curve.equals(whole.curve)
    assert finished.held_out.equals(whole.held_out)
    assert finished.settings == whole.settings
    assert [file.name for file in tmp_path.iterdir()] == ["training"]

    monkeypatch.setattr(loop.WriteTraining, "_step", None)  # nothing is left to do
    assert_same_bits(train(bridge, checkpoint=path, **options).write, whole.write)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "current"}, "differs in source"),
        ({"steps": 10, "seed": 1}, "differs in seed, steps"),
        ({"texts": random_texts(seed=1)}, "differs in held_out_texts, texts"),
        ({"options": dataclasses.replace(SMALL, weight_decay=0.1)}, "differs in weight_decay"),
    ],
)
def test_another_training_is_refused(tmp_path, options, message):
    bridge = shared_bridge("llama")
    train(bridge, checkpoint=tmp_path / "training")
    with pytest.raises(ValueError, match=message):
        train(bridge, checkpoint=tmp_path / "training", **options)


def test_another_config_of_the_same_weights_is_refused(tmp_path):
    train(tiny_bridge("llama"), checkpoint=tmp_path / "training")
    with pytest.raises(ValueError, match="differs in config:"):
        train(tiny_bridge("llama", rms_norm_eps=0.1), checkpoint=tmp_path / "training")


def test_other_files_are_refused(tmp_path):
    bridge = shared_bridge("llama")
    (tmp_path / "text").write_text("x")
    with pytest.raises(ValueError, match="is not a saved training"):
        train(bridge, checkpoint=tmp_path / "text")
    random_write(bridge).save(tmp_path / "write")
    with pytest.raises(ValueError, match="not a saved training"):
        train(bridge, checkpoint=tmp_path / "write")
