"""The model of a run: where it may go, and what it may carry."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import pytest
import torch

from lens_interventions.experiments import run
from lens_interventions.experiments.engine.model_source import ModelSource
from lens_interventions.experiments.engine.work_units import Unit, measure_unit
from tests.support.small_run import assert_same, example, mean_logits, small_bridge
from tests.support.tiny import tiny_model, tiny_tokenizer


def test_a_live_bridge_cannot_go_to_another_process() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(TypeError, match="give the experiment the model's name or directory"),
    ):
        run(example(), small_bridge(), executor=pool)


def test_hooks_on_the_bridge_are_refused() -> None:
    bridge = small_bridge()
    with (
        bridge.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x)]),
        pytest.raises(ValueError, match="hooks on the bridge"),
    ):
        run(example(), bridge)


def test_lasting_hooks_are_refused_where_a_directory_could_not_record_them(tmp_path) -> None:
    bridge = small_bridge()
    bridge.add_perma_hook("blocks.1.hook_resid_pre", lambda x, hook: x)
    with pytest.raises(ValueError, match="leave out the directory"):
        run(example(), bridge, out=tmp_path / "run")
    run(example(), bridge)


@pytest.mark.parametrize("loaded", [True, False])
def test_weights_may_be_edited_between_two_runs(loaded: bool) -> None:
    bridge = small_bridge()
    model = bridge if loaded else partial(lambda: bridge)
    with ThreadPoolExecutor(1) as pool:
        before = run(example(), model, executor=pool)
        with torch.no_grad():
            bridge.blocks[1].mlp.out.weight.mul_(0.5)
        after = run(example(), model, executor=pool)
    assert_same(after, run(example(), bridge))
    assert (after.to_dataframe()["mean"] != before.to_dataframe()["mean"]).any()


def test_a_worker_with_other_weights_names_its_model() -> None:
    bridge = small_bridge()
    bridge.cfg.model_name = "tiny"
    unit = Unit("first", "unit", mean_logits, {"start": 3, "gate": "."})
    for _ in range(2):  # the refusal is not remembered as an agreement
        with pytest.raises(RuntimeError, match=r"^tiny has other weights here than"):
            measure_unit(ModelSource(bridge), unit, "0" * 64)


def test_a_directory_that_was_saved_to_again_is_loaded_again(tmp_path) -> None:
    """By the next run: one that has begun keeps its model."""
    for scale in (1.0, 2.0):
        model = tiny_model("llama")
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(scale)
        model.save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        source = ModelSource(str(tmp_path))
        assert source.bridge().W_E.max().item() == scale
        (tmp_path / "notes.txt").write_text(f"scale {scale}")
        # As in a run that has begun, here and in another process.
        assert source.bridge() is pickle.loads(pickle.dumps(source)).bridge()


def test_a_directory_in_the_users_home_is_loaded_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for scale in (1.0, 2.0):
        model = tiny_model("llama")
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(scale)
        model.save_pretrained(tmp_path / "my model")
        tiny_tokenizer().save_pretrained(tmp_path / "my model")
        assert ModelSource("~/my model").bridge().W_E.max().item() == scale
