"""The effect map against one run with a plain hook for every cell."""

import dataclasses
import json
import re

import pytest
import torch

import lens_interventions as li
from lens_interventions import _progress
from lens_interventions.drawing.labels import markup, visible
from lens_interventions.intervention.patch import NextTokenPatch
from tests.support.clean import left_as_found
from tests.support.exact import tolerance
from tests.support.tiny import random_tokens, shared_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = NextTokenPatch(layer=range(3), strength=0.6, scale="norm")


def metric(logits):
    """Reads every position, each with a weight of its own, and is not linear."""
    weight = torch.linspace(-1, 2, logits.shape[1], dtype=logits.dtype)
    return (logits.log_softmax(-1)[..., :7].mean((0, 2)) * weight).sum()


def cell(bridge, tokens, layer, position, strength=PATCH.strength):
    """The effect at one place, from a hook on that place alone."""
    clean = bridge(tokens)

    def patch(resid, hook):
        resid = resid.clone()
        r, e = resid[:, position], bridge.W_E[tokens[:, position + 1]]
        s = r.norm(dim=-1, keepdim=True) / e.norm(dim=-1, keepdim=True)
        resid[:, position] = (1 - strength) * r + strength * s * e
        return resid

    hooks = [(f"blocks.{layer}.hook_resid_pre", patch)]
    logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks)
    # The patched position itself predicts before it can know.
    logits[:, : position + 1] = clean[:, : position + 1]
    return float(metric(logits) - metric(clean))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 25, 512])
@pytest.mark.parametrize("bridge", ["gpt2", "llama", "gemma2", "falcon"], indirect=True)
def test_every_cell_is_a_run_with_one_hook(bridge, rows, monkeypatch):
    monkeypatch.setattr("lens_interventions.intervention.effect_map.BLOCK_ROWS", rows)
    tokens = random_tokens(2, 9)
    found = li.effect_map(bridge, tokens, metric, patch=PATCH)
    assert found.effect.shape == (3, 8)
    assert abs(found.baseline - float(metric(bridge(tokens)))) < 1e-9
    for layer in range(3):
        for position in range(8):
            expected = cell(bridge, tokens, layer, position)
            assert abs(found.effect[layer, position] - expected) < 1e-9
    assert found.effect.abs().min() > 1e-6


@torch.no_grad()
def test_all_positions_are_those_with_a_next_token(llama):
    """Also those below the patch's first position."""
    patch, tokens = dataclasses.replace(PATCH, first_position=2), random_tokens(6)
    own, every, named = (
        li.effect_map(llama, tokens, metric, patch=patch, positions=positions)
        for positions in (None, "all", range(5))
    )
    assert own.positions == (2, 3, 4)
    assert every.positions == named.positions == (0, 1, 2, 3, 4)
    torch.testing.assert_close(every.effect, named.effect, rtol=0, atol=0)
    assert every.effect[:, 0].abs().min() > 1e-6


@torch.no_grad()
def test_a_gate_on_the_output_leaves_out_what_was_no_surprise():
    tokens, bridge = random_tokens(1, 9), shared_bridge("llama")
    nats = -bridge(tokens)[0, :-1].log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    gate = float(nats.median())
    gated = dataclasses.replace(PATCH, gate=gate, gate_on="output")
    every = li.effect_map(bridge, tokens, metric, patch=PATCH).effect
    found = li.effect_map(bridge, tokens, metric, patch=gated).effect
    torch.testing.assert_close(found, every.where(nats >= gate, 0), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt_neo", "mpt"])
def test_models_that_take_no_mask_of_ones_own(architecture):
    tokens = random_tokens(1, 9)
    with left_as_found(shared_bridge(architecture)) as bridge:
        found = li.effect_map(bridge, tokens, metric, patch=PATCH, layers=[2, 1], positions=[6, 2])
        assert (found.layers, found.positions) == ((1, 2), (2, 6))
        for row, layer in enumerate(found.layers):
            for column, position in enumerate(found.positions):
                expected = cell(bridge, tokens, layer, position)
                assert abs(found.effect[row, column] - expected) < tolerance(architecture)


@torch.no_grad()
def test_positions_up_to_the_patched_one_are_untouched(llama):
    tokens = random_tokens(1, 6)
    seen = []

    def first_three(logits):
        seen.append(logits[:, :3].clone())
        return logits[0, 0, 0]

    found = li.effect_map(llama, tokens, first_three, patch=PATCH, positions=[2, 4])
    assert found.effect.abs().max() == 0
    assert all(torch.equal(logits, seen[0]) for logits in seen)


def test_what_a_map_says(llama):
    text = "the time they say"
    found = li.effect_map(llama, text, lambda logits: logits[0, -1, 5], patch=PATCH)
    strings = llama.to_str_tokens(text)
    assert found.tokens == tuple(strings[:-1])
    assert found.next_tokens == tuple(strings[1:])
    frame = found.to_dataframe()
    assert list(frame) == ["layer", "pos", "token", "next_token", "effect"]
    assert len(frame) == found.effect.numel()
    last = frame.iloc[-1]
    assert (last.layer, last.pos) == (2, len(strings) - 2)
    assert last.effect == float(found.effect[-1, -1])
    figure = json.loads(found.plot().to_json())
    cell = figure["data"][0]["customdata"][1][2]
    assert cell == [1, 2, visible(strings[2]), visible(strings[3])]
    # As many columns as positions, though tokens repeat.
    assert figure["layout"]["xaxis"]["ticktext"] == [markup(visible(t)) for t in strings[:-1]]
    assert figure["layout"]["xaxis2"]["ticktext"] == [visible(text) for text in strings[1:]]
    assert figure["layout"]["yaxis"]["ticktext"] == ["0", "1", "2"]
    assert len(figure["data"][0]["z"][0]) == len(strings) - 1
    # A page may change the theme of a figure by its template alone.
    dark = found.plot(theme="dark")
    assert found.plot().update_layout(template=dark.layout.template) == dark


@pytest.mark.parametrize(
    ("source", "words"),
    [("true", "true next token"), ("zero", "no token"), (li.BackPatch(2), "BackPatch(layer=2)")],
)
def test_its_figure_names_what_is_written(source, words):
    patch = dataclasses.replace(PATCH, source=source)
    found = li.EffectMap(torch.ones(1, 2), 0.5, (0,), (0, 1), ("a", "b"), ("b", "c"), patch)
    title = re.sub("<[^>]*>", "", found.plot().layout.title.text.replace("<br>", " "))
    assert f"patched with this source: {words}. The token that comes next" in title


def test_layers_and_positions_of_the_patch_are_mapped(llama):
    patch = dataclasses.replace(PATCH, layer=1, positions=(0, 3))
    found = li.effect_map(llama, random_tokens(1, 6), metric, patch=patch)
    assert (found.layers, found.positions) == ((1,), (0, 3))


def test_one_large_effect_does_not_take_the_colours_of_the_others():
    effect = torch.arange(1.0, 101).view(2, 50)
    effect[0, 0] = -10_000
    texts = ("a",) * 50
    found = li.EffectMap(effect, 0.5, (0, 1), tuple(range(50)), texts, texts, PATCH)
    figure = found.plot()
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (-100, 100)
    title = figure.layout.title.text.replace("<br>", " ")
    assert "Colours stop at ±100; 1 cell lies beyond." in title
    # Wrapped into two stretches, which share the colour bar.
    assert len([trace for trace in figure.data if trace.type == "heatmap"]) == 2
    assert figure.layout.coloraxis.showscale
    same = dataclasses.replace(found, effect=torch.ones(2, 50)).plot()
    assert same.layout.coloraxis.cmax == 1
    assert "beyond" not in same.layout.title.text


def test_cells_where_the_metric_is_not_a_number_are_gaps(llama):
    tokens = random_tokens(1, 6)
    clean = llama(tokens)[0, -1, 5]

    def undefined_below(logits):
        return (logits[0, -1, 5] - clean).clamp(min=-1e-12).sqrt()

    found = li.effect_map(llama, tokens, undefined_below, patch=PATCH)
    gaps = found.effect.isnan()
    assert 0 < gaps.sum() < gaps.numel()
    figure = found.plot()
    assert [[z is None for z in row] for row in figure.data[0].z] == gaps.tolist()
    title = re.sub("<[^>]*>", "", figure.layout.title.text.replace("<br>", " "))
    assert "In a gap the metric is not" in title
    infinite = dataclasses.replace(found, effect=found.effect.where(~gaps, torch.inf)).plot()
    assert infinite.layout.coloraxis == figure.layout.coloraxis
    nothing = dataclasses.replace(found, effect=found.effect * torch.nan).plot()
    assert nothing.layout.coloraxis.cmax == 1
    with pytest.raises(ValueError, match="the metric is nan without a patch"):
        li.effect_map(llama, tokens, lambda _logits: float("nan"), patch=PATCH)


def test_progress_counts_cells(llama, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    li.effect_map(llama, random_tokens(1, 6), metric, patch=PATCH, progress=True)
    assert "15/15" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": dataclasses.replace(PATCH, window=2)}, "makes? no sense here; got window=2"),
        ({"patch": dataclasses.replace(PATCH, positions="generated")}, "positions='generated'"),
        ({"layers": [3]}, r"the model has blocks 0 to 2, but layers are \[3\]"),
        ({"positions": [5]}, r"positions must be some of 0\.\.4, .* needs a next token"),
        ({"positions": []}, "positions must be some of"),
        ({"patch": dataclasses.replace(PATCH, first_position=9)}, "spares the first 9, so nothing"),
        ({"metric": lambda logits: logits[0, -1]}, r"returned shape \(112,\)"),
        ({"metric": lambda _logits: None}, "the metric returned None"),
    ],
)
def test_what_makes_no_sense_is_refused(llama, arguments, message):
    tokens = random_tokens(1, 6)
    with pytest.raises(ValueError, match=message):
        li.effect_map(llama, tokens, **{"metric": metric, "patch": PATCH} | arguments)


def test_hooks_of_a_patch_are_refused_even_below_the_map(llama):
    """They write each next token where it is predicted, and the metric reads every position."""
    tokens = random_tokens(1, 8)
    own = NextTokenPatch(layer=0, strength=0.5, scale="norm")
    with (
        llama.hooks(fwd_hooks=own.fwd_hooks(llama, tokens)),
        pytest.raises(ValueError, match=r"hooks of a patch are on the bridge.*patch="),
    ):
        li.effect_map(llama, tokens, metric, patch=PATCH, layers=[2])


def test_texts_of_different_length_are_refused(llama):
    with pytest.raises(ValueError, match="texts of one length"):
        li.effect_map(llama, ["the time", "the other time"], metric, patch=PATCH)


def test_a_failing_metric_leaves_the_bridge_as_it_was(llama):
    def fails(_logits):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        li.effect_map(llama, random_tokens(1, 6), fails, patch=PATCH)


@torch.no_grad()
def test_a_metric_may_change_the_logits_that_it_gets():
    bridge, tokens = shared_bridge("llama"), random_tokens(1, 7)
    found = li.effect_map(bridge, tokens, lambda logits: metric(logits.div_(2)), patch=PATCH)
    expected = li.effect_map(bridge, tokens, lambda logits: metric(logits / 2), patch=PATCH)
    assert torch.equal(found.effect, expected.effect)
    assert found.baseline == expected.baseline
