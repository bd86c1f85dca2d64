"""A patch as JSON, bound to a model, and as hooks."""

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

import lens_interventions as li
from lens_interventions.intervention import modes, sources
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import BackPatch
from tests.support.exact import tolerance
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens

pytestmark = pytest.mark.usefixtures("exact")


LENGTH = 9


@pytest.fixture
def tokens():
    return random_tokens(2, LENGTH)


@pytest.mark.parametrize(
    "patch",
    [
        NextTokenPatch(layer=24, strength=0.1),
        NextTokenPatch(
            layer=(20, 24),
            strength=-2.5,
            mode="correct",
            scale="deviation",
            embedding="W_U",
            positions=[1, 4],
            first_position=1,
            window=3,
            gate=2.0,
            source="shuffled",
            seed=7,
        ),
    ],
)
def test_json_brings_it_back(patch):
    assert NextTokenPatch.from_json(patch.to_json()) == patch


def test_modes_and_sources_of_the_library_are_their_names(llama):
    """So a control in mode correct moves as far as the truth, and the file of a patch has it."""
    given = NextTokenPatch(layer=1, strength=0.5, mode=modes.correct, source=sources.shuffled)
    named = NextTokenPatch(layer=1, strength=0.5, mode="correct", source="shuffled")
    assert given == named
    assert given.to_json() == named.to_json()
    assert not NextTokenPatch(layer=1, strength=0.5, mode=modes.add).reads_lens


@pytest.mark.usefixtures("as_users_run")  # the type of `mode` names the library's own
def test_a_mode_of_the_registry_says_itself_whether_it_reads_the_lens(monkeypatch):
    monkeypatch.setitem(modes.MODES, "half", modes.reads_no_lens(lambda site, *_: site.resid / 2))
    monkeypatch.setitem(modes.MODES, "guess", lambda site, *_: site.expected_embedding)
    half, guess = (NextTokenPatch(layer=1, strength=0.5, mode=mode) for mode in ("half", "guess"))
    assert not half.reads_lens
    assert guess.reads_lens


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
@pytest.mark.usefixtures("as_users_run")
def test_layers_and_positions_may_be_arrays(kind):
    found = NextTokenPatch(layer=kind([2, 1]), strength=0.1, positions=kind([5, 3]))
    assert found == NextTokenPatch(layer=(1, 2), strength=0.1, positions=(3, 5))
    assert NextTokenPatch(layer=kind(2), strength=0.1).layers == (2,)
    assert NextTokenPatch.from_json(found.to_json()) == found


@pytest.mark.parametrize("field", ["mode", "source", "lens", "jacobian"])
def test_json_refuses_functions(field):
    given = {field: lambda *_: None}
    if field == "jacobian":  # which cannot be called
        field, given = "lens", {"lens": JacobianLens({0: torch.eye(4)}, n_prompts=1, d_model=4)}
    patch = NextTokenPatch(layer=1, strength=0.1, **given)
    with pytest.raises(ValueError, match=f"{field} is .* which JSON cannot hold"):
        patch.to_json()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"strength": torch.tensor(0.1)}, TypeError, "strength must be a number, got Tensor"),
        ({"strength": "0.1"}, TypeError, "strength must be a number, got str '0.1'"),
        ({"strength": None}, TypeError, "strength must be a number, got NoneType"),
        ({"strength": True}, TypeError, "strength must be a number, got bool True"),
        ({"gate": [1.0]}, TypeError, "gate must be a number, got list"),
        ({"seed": 1.5}, TypeError, "seed must be an integer, got 1.5"),
        ({"window": 2.5}, ValueError, "window must be from 1 to .* positions, got 2.5"),
        ({"window": 10**40}, ValueError, "window must be from 1 to .* positions, got 1000"),
        ({"strength": 10**400}, ValueError, "strength must be a finite number"),
        ({"first_position": -1}, ValueError, "first_position must be from 0 to .* got -1"),
        ({"strength": float("nan")}, ValueError, "must be a finite number"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_numbers_of_the_wrong_type_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        NextTokenPatch(**{"layer": 1, "strength": 0.1, **fields})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 0.5]", r"expected a JSON object .*, got '\[1, 0\.5\]'"),
        ("{}", r"lacks \['layer', 'strength'\] and has \[\] besides"),
        ('{"layer": 1, "strength": 1, "foo": 2}', r"lacks \[\] and has \['foo'\] besides"),
        ('{"layer": -1, "strength": 1}', "block numbers from 0 up"),
        ("not JSON", "expected a JSON object .*, got 'not JSON'"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_json_of_something_else_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        NextTokenPatch.from_json(text)


@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_text_is_no_json():
    with pytest.raises(ValueError, match=r"expected a JSON object .*, got None"):
        NextTokenPatch.from_json(None)


@torch.no_grad()
@pytest.mark.parametrize("mode", modes.MODES)
def test_a_negative_strength_goes_the_other_way(llama, tokens, mode):
    plain = llama.run_with_cache(tokens)[1]["blocks.1.hook_resid_pre"]
    moves = []
    for strength in (0.3, -0.3):
        hooks = NextTokenPatch(layer=1, strength=strength, mode=mode).fwd_hooks(llama, tokens)
        with llama.hooks(fwd_hooks=hooks):
            moves.append(llama.run_with_cache(tokens)[1]["blocks.1.hook_resid_pre"] - plain)
    assert float(moves[0].abs().max()) > 0.01
    torch.testing.assert_close(moves[1], -moves[0])


def test_a_layer_that_the_model_lacks_is_refused(llama):
    with pytest.raises(
        ValueError, match=r"residuals r\[0\] to r\[3\], but the patch writes that of B"
    ):
        NextTokenPatch(layer=1, strength=0.1, source=BackPatch(4)).bind(llama)
    with pytest.raises(ValueError, match="blocks 0 to 2, the patch asks for 3"):
        NextTokenPatch(layer=(1, 3), strength=0.1).bind(llama)


class TestHooks:
    @torch.no_grad()
    def test_the_last_position_is_what_a_sampler_computes(self, request, bridge):
        architecture = request.node.callspec.params["bridge"]
        text = random_tokens(LENGTH)
        for patch in (
            NextTokenPatch(layer=(0, 2), strength=0.5, scale="norm"),
            NextTokenPatch(layer=1, strength=0.5, source="direction", window=2),
            NextTokenPatch(layer=1, strength=1.0, gate=4.0, gate_on="output"),
            NextTokenPatch(layer=0, strength=0.7, source=BackPatch(2)),
        ):
            logits = bridge.run_with_hooks(text[None], fwd_hooks=patch.fwd_hooks(bridge, text))
            (expected,) = patched_logits(bridge, text, patch, only_last=True)
            atol = tolerance(architecture)
            torch.testing.assert_close(logits[0, -1], expected, rtol=0, atol=atol)

    @torch.no_grad()
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize(
        "fields",
        [{"source": "shuffled"}, {"gate": 4.0, "gate_on": "output"}, {"source": BackPatch(2)}],
        ids=str,
    )
    def test_padding(self, llama, tokens, side, fields):
        patch = NextTokenPatch(layer=1, strength=0.5, **fields)
        pads = torch.zeros(4, dtype=torch.long)
        short, gap = tokens[1, :5], slice(0, 4) if side == "left" else slice(5, 9)
        row = torch.cat([pads, short] if side == "left" else [short, pads])
        batch, mask = torch.stack([tokens[0], row]), torch.ones(2, LENGTH, dtype=torch.long)
        mask[1, gap] = 0
        hooks = patch.fwd_hooks(llama, batch, attention_mask=mask)
        logits = llama.run_with_hooks(batch, fwd_hooks=hooks, attention_mask=mask)
        last = logits[1, -1 if side == "left" else 4]
        for text, found in ((tokens[0], logits[0, -1]), (short, last)):
            (expected,) = patched_logits(llama, text, patch, only_last=True)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)

    @torch.no_grad()
    def test_caches_and_lenses_see_what_was_patched(self, llama, tokens):
        patch = NextTokenPatch(layer=1, strength=1.0)
        with llama.hooks(fwd_hooks=patch.fwd_hooks(llama, tokens)):
            _, cache = llama.run_with_cache(tokens)
            lens = li.logit_lens(llama, tokens, points=["1_pre"], top_k=1)
        patched = cache["blocks.1.hook_resid_pre"]
        torch.testing.assert_close(patched[:, :-1], llama.W_E[tokens[:, 1:]])
        expected = llama.unembed(llama.ln_final(patched)).argmax(-1)
        assert torch.equal(lens.top_ids[0, ..., 0], expected)

    def test_other_tokens_than_the_hooks_were_made_for_are_refused(self, llama, tokens):
        hooks = NextTokenPatch(layer=1, strength=1.0).fwd_hooks(llama, tokens)
        with pytest.raises(ValueError, match=r"for tokens of shape \(2, 9\), .* runs on \(2, 8\)"):
            llama.run_with_hooks(tokens[:, 1:], fwd_hooks=hooks)
        other = tokens.clone()
        other[1, 4] += 1
        with pytest.raises(ValueError, match=r"for other tokens: in column 4 text 1 has id"):
            llama.run_with_hooks(other, fwd_hooks=hooks)

    def test_positions_that_no_text_has_are_warned_of(self, llama, tokens):
        last = tokens.shape[1] - 1
        patch = NextTokenPatch(layer=1, strength=0.5, positions=[last])
        message = rf"positions \[{last}\] changes nothing: .* the first {last} positions"
        with pytest.warns(UserWarning, match=message):
            patch.fwd_hooks(llama, tokens)
        with pytest.warns(UserWarning, match=message):
            li.teacher_forced_log_probs(llama, tokens, [None, patch])

    @pytest.mark.parametrize(
        ("fields", "where"),
        [
            ({"positions": []}, r"at positions \[\]"),
            (
                {"positions": [0, 1], "first_position": 2},
                r"at positions \[0, 1\] and the first 2 spared",
            ),
        ],
    )
    def test_a_patch_that_acts_nowhere_is_warned_of(self, llama, tokens, fields, where):
        patch = NextTokenPatch(layer=1, strength=0.5, **fields)
        with pytest.warns(UserWarning, match=f"{where}.* changes nothing"):
            found = li.teacher_forced_log_probs(llama, tokens, patch)
        assert torch.equal(found, li.teacher_forced_log_probs(llama, tokens))

    def test_a_patch_may_begin_beyond_a_short_text(self, llama):
        patch = NextTokenPatch(layer=1, strength=0.5, first_position=3)
        li.teacher_forced_log_probs(llama, [[5, 6, 7]], patch)

    def test_texts_of_different_length_are_to_be_padded_by_the_caller(self, llama):
        with pytest.raises(ValueError, match="its attention_mask"):
            NextTokenPatch(layer=1, strength=1.0).fwd_hooks(llama, ["the time", "the other time"])
