"""Rescue against runs of one prefix at a time, and on a model that can be rescued."""

import dataclasses

import numpy as np
import pytest
import torch

import lens_interventions as li
from lens_interventions.drawing.theme import template
from tests.support.added_rows import adding
from tests.support.clean import left_as_found
from tests.support.planted import planted_bridge
from tests.support.reference_rescue import hidden_nats
from tests.support.tiny import random_tokens, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact", "unrounded")


def repeated(n):
    part = random_tokens(n)
    return torch.cat([part, part.flip(0)[:2], part])


@pytest.mark.parametrize("bridge", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen3"], indirect=True)
@pytest.mark.parametrize("through", ["both", "keys", "values"])
def test_it_equals_runs_of_one_prefix_at_a_time(bridge, through):
    texts = [repeated(5), random_tokens(9)]
    patch = li.NextTokenPatch(layer=1, strength=0.7, mode="add", embedding="W_U", scale="norm")
    found = li.rescue(
        bridge,
        texts,
        patch,
        sources=["true", "current"],
        through=[through],
        scopes=["all"],
        progress=False,
    )
    for number, tokens in enumerate(texts):
        ahead = adding(bridge, 0.7, lambda i, tokens=tokens: tokens[i + 1])
        here = adding(bridge, 0.7, lambda i, tokens=tokens: tokens[i])
        expected = [hidden_nats(bridge, tokens, 1, w, through) for w in (ahead, here)]
        bare = hidden_nats(bridge, tokens, 1, None)
        np.testing.assert_allclose(
            found.patched[number, 0, 0, 0], [e.sum() for e in expected], rtol=1e-9
        )
        np.testing.assert_allclose(found.hidden[number, 0, 0], bare.sum(), rtol=1e-9)
        clean = -li.teacher_forced_log_probs(bridge, tokens, None).sum()
        np.testing.assert_allclose(found.clean[number, 0], clean, rtol=1e-9)
    # What the test could miss if nothing were hidden, or read.
    assert abs(found.hidden[0, 0, 0] - found.clean[0, 0]) > 1e-3
    assert abs(found.patched[0, 0, 0, 0, 0] - found.hidden[0, 0, 0]) > 1e-3


def test_layers_in_turn_are_each_alone(llama):
    texts = [repeated(5), random_tokens(9), random_tokens(1)]
    patch = li.NextTokenPatch(layer=0, strength=0.5)
    options = {"scopes": ["all", "copyable"], "progress": False}
    found = li.rescue(llama, texts, patch, layers=[0, 2], **options)
    alone = li.rescue(llama, texts[1:2], dataclasses.replace(patch, layer=2), **options)
    np.testing.assert_allclose(found.patched[1, :, 1], alone.patched[0, :, 0], rtol=1e-9)
    np.testing.assert_allclose(found.hidden[1, :, 1], alone.hidden[0, :, 0], rtol=1e-9)
    assert found.counts[:, 0].tolist() == [11, 8, 0]
    layers = found.to_dataframe()["layer"].unique().tolist()
    assert layers == [0, 2]


def test_text_without_repeats_hides_nothing(llama):
    tokens = torch.randperm(100)[:12]
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    found = li.rescue(
        llama, [tokens], patch, sources=["true"], scopes=["all"], through=["both"], progress=False
    )
    patched = -li.teacher_forced_log_probs(llama, tokens, patch).sum()
    np.testing.assert_allclose(found.hidden[:, :, 0], found.clean, rtol=1e-9)
    np.testing.assert_allclose(found.patched.item(), patched, rtol=1e-9)


def test_a_model_that_copies_what_the_position_before_holds_is_rescued_through_values():
    bridge = planted_bridge()
    part = random_tokens(20)
    patch = li.NextTokenPatch(layer=1, strength=3.0, mode="add", scale="raw")
    with left_as_found(bridge):
        found = li.rescue(bridge, [torch.cat([part, part])] * 2, patch, progress=False)
    frame = found.to_dataframe().set_index(["through", "condition", "minus"])["estimate"]
    for control in ("hidden", "current", "shuffled", "random"):
        assert frame["both", "true", control] < -5
        assert frame["values", "true", control] < -5
        # It matches what the patch leaves alone.
        assert abs(frame["keys", "true", control]) < 1e-6


def test_what_it_refuses():
    bridge = tiny_bridge("llama")
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    with pytest.raises(ValueError, match="has a window of 3"):
        li.rescue(bridge, ["a"], dataclasses.replace(patch, window=3), progress=False)
    for layers, said in (
        ([], r"blocks 0 to 2, but layers are \[\]"),
        ([99], r"blocks 0 to 2, but layers are \[99\]"),
    ):
        with pytest.raises(ValueError, match=said):
            li.rescue(bridge, [random_tokens(8)], patch, layers=layers, progress=False)
    with pytest.raises(NotImplementedError, match="does not run two copies"):
        li.rescue(tiny_bridge("mpt"), [random_tokens(8)], patch, progress=False)


@pytest.mark.parametrize(("point", "through"), [("hook_k", "keys"), ("hook_v", "values")])
def test_a_model_without_keys_or_values_is_refused_for_these_alone(
    point, through, llama, monkeypatch
):
    hooks = {name: at for name, at in llama.hook_dict.items() if f"attn.{point}" not in name}
    monkeypatch.setattr(type(llama), "hook_dict", hooks)
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    with pytest.raises(NotImplementedError, match=rf"no blocks\.1\.attn\.{point}"):
        li.rescue(llama, [random_tokens(8)], patch, through=["both", through], progress=False)
    # Where both move together they need not be told apart.
    li.rescue(llama, [repeated(5)], patch, through=["both"], progress=False)


def test_it_goes_on_where_it_was_stopped(llama, tmp_path):
    texts = [repeated(5), repeated(6)]
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    options = {"sources": ["true"], "through": ["both"], "progress": False}
    whole = li.rescue(llama, texts, patch, **options)

    def one_and_a_stop():
        yield texts[0]
        yield torch.randperm(100)[:40].repeat(14)
        raise KeyboardInterrupt

    kept = tmp_path / "rescue.jsonl"
    with pytest.raises(KeyboardInterrupt):
        li.rescue(llama, one_and_a_stop(), patch, checkpoint=kept, max_length=64, **options)
    n_kept = len(kept.read_text().splitlines())
    assert n_kept >= 2
    again = li.rescue(llama, texts, patch, checkpoint=kept, max_length=64, **options)
    assert len(kept.read_text().splitlines()) == n_kept + 1
    np.testing.assert_allclose(again.patched, whole.patched, rtol=1e-9)
    with pytest.raises(ValueError, match="another measurement, which differs in through"):
        li.rescue(
            llama, texts, patch, checkpoint=kept, max_length=64, **options | {"through": ["keys"]}
        )
    with pytest.raises(ValueError, match="another measurement, which differs in max_length"):
        li.rescue(llama, texts, patch, checkpoint=kept, max_length=32, **options)


def test_the_figure_shows_what_could_be_rescued(llama):
    texts = [repeated(5), repeated(6)]
    patch = li.NextTokenPatch(layer=0, strength=0.5)
    found = li.rescue(llama, texts, patch, layers=[0, 1], sources=["true"], progress=False)
    figure = found.plot()
    names = {trace.name for trace in figure.data if trace.name}
    assert names == {"nothing hidden", "true"}
    assert "Scope: copyable" in figure.layout.title.text
    assert figure.layout.template == template("light")
    unnamed = dataclasses.replace(found, scopes=("<lambda>",)).plot()
    assert "Scope: &lt;lambda&gt;" in unnamed.layout.title.text
    assert found.plot(theme="dark") == figure.update_layout(template=template("dark"))
    with pytest.raises(ValueError, match="no scope 'all'"):
        found.plot(scope="all")
