"""What teacher forcing does about hooks, failures and models that it is not right on."""

import dataclasses
import re

import pytest
import torch

from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.teacher_forcing import self_check as probe
from lens_interventions.intervention.teacher_forcing import two_streams as two_streams_module
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


class TestOtherHooks:
    @torch.no_grad()
    def test_hooks_below_the_patch_act(self, llama):
        tokens = random_tokens(1, 8)

        def ablate(value, hook):
            value = value.clone()
            value[:, :, 0] = 0
            return value

        below = [("blocks.0.attn.hook_z", ablate)]
        with llama.hooks(fwd_hooks=below):
            found = teacher_forced_logits(llama, tokens, PATCH)
            expected = patched_logits(llama, tokens[0], PATCH)
        close(found[0], expected)
        assert (found - teacher_forced_logits(llama, tokens, PATCH)).abs().max() > 1e-3

    @torch.no_grad()
    def test_values_that_are_not_finite_are_named_and_no_reason_to_mistrust(self):
        bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)

        def overflow(value, hook):
            return value.index_fill(1, torch.tensor([3]), torch.inf)

        with (
            bridge.hooks(fwd_hooks=[("blocks.0.mlp.hook_out", overflow)]),
            pytest.raises(ValueError, match=r"not finite .* enters block 1: look for a hook"),
        ):
            teacher_forced_logits(bridge, tokens, PATCH)
        # In two streams, without a warning.
        found = teacher_forced_logits(bridge, tokens, PATCH)
        close(found[0], patched_logits(bridge, tokens[0], PATCH))

    @pytest.mark.parametrize("score", [teacher_forced_logits, teacher_forced_log_probs])
    def test_logits_that_are_not_numbers_are_named(self, llama, score):
        def undefined(site, e, s, a):
            return site.resid.masked_fill((site.position == 4)[..., None], torch.nan)

        bad = dataclasses.replace(PATCH, mode=undefined)
        with pytest.raises(ValueError, match="not a number, first under patch 1 in text 0 at col"):
            score(llama, random_tokens(2, 8), [PATCH, bad])
        # Where no next token asks for it, nothing is missing.
        assert score(llama, random_tokens(2, 4), [PATCH, bad]).isfinite().all()

    @pytest.mark.parametrize(
        "name",
        ["blocks.2.mlp.hook_out", "rotary_emb.hook_cos", "ln_final.hook_scale", "unembed.hook_out"],
    )
    def test_hooks_from_the_patch_up_are_refused(self, llama, name):
        tokens = random_tokens(1, 8)
        above = [(name, lambda value, hook: value * 1)]
        with (
            llama.hooks(fwd_hooks=above),
            pytest.raises(
                ValueError, match=rf"a hook on {re.escape(name)}: from the patched block 1 up"
            ),
        ):
            teacher_forced_logits(llama, tokens, PATCH)

    @torch.no_grad()
    @pytest.mark.parametrize("architecture", ["llama", "mpt"])
    @pytest.mark.filterwarnings("ignore:.*does not run two copies of a text")
    def test_hooks_below_the_patch_see_the_text(self, architecture):
        """In one pass and, where there is none, step by step."""
        bridge, tokens = shared_bridge(architecture), random_tokens(1, 8)
        patch = dataclasses.replace(PATCH, layer=2, embedding="W_U")

        def at_the_third(resid, hook):
            # Nothing where the text is shorter.
            return torch.cat([resid[:, :3], resid[:, 3:4] + 1, resid[:, 4:]], dim=1)

        with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", at_the_third)]):
            found = teacher_forced_logits(bridge, tokens, patch)
            expected = patched_logits(bridge, tokens[0], patch)
        close(found[0], expected, 1e-4)


class TestExceptions:
    """Whatever happens inside, the `llama` fixture finds the bridge as it was."""

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError])
    @pytest.mark.parametrize("n_calls", [1, 4])
    @pytest.mark.parametrize("role", ["source", "mode"])
    def test_a_failing_function(self, llama, error, n_calls, role, monkeypatch):
        monkeypatch.setattr("lens_interventions.intervention.teacher_forcing.passes.MAX_CHUNK", 3)
        calls = []

        def fails(site, *_):
            calls.append(site)
            if len(calls) == n_calls:
                raise error
            return site.next_tokens if role == "source" else site.resid

        patch = NextTokenPatch(layer=(1, 2), strength=0.1, **{role: fails})
        with pytest.raises(error):
            teacher_forced_logits(llama, random_tokens(2, 10), patch)
        assert len(calls) == n_calls

    def test_a_failing_block(self, llama):
        tokens = random_tokens(1, 8)
        teacher_forced_logits(llama, tokens, PATCH)  # past the probe

        def fails(*_):
            raise MemoryError

        handle = llama.blocks[2].mlp.register_forward_pre_hook(fails)
        try:
            with pytest.raises(MemoryError):
                teacher_forced_logits(llama, tokens, PATCH)
        finally:
            handle.remove()


class TestProbe:
    @torch.no_grad()
    def test_a_window_by_place_is_found_at_the_length_at_which_it_shows(self):
        bridge = tiny_bridge("gpt_neo", window_size=80)
        patch, short, long = PATCH, random_tokens(20), random_tokens(50)
        # Up to 40 tokens every key is less than 80 places away.
        close(
            teacher_forced_logits(bridge, short, patch)[0],
            patched_logits(bridge, short, patch),
            1e-4,
        )
        with pytest.warns(UserWarning, match="GPTNeo.* does not run two copies of a text"):
            logits = teacher_forced_logits(bridge, long, patch)
        close(logits[0], patched_logits(bridge, long, patch), 1e-4)

    @torch.no_grad()
    @pytest.mark.parametrize("broken", ["mask", "positions"])
    def test_two_streams_that_are_wrong_are_not_used(self, broken, monkeypatch):
        bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
        if broken == "mask":
            visible = two_streams_module.visible

            def leaky(rows, start, window):
                seen = visible(rows, start, window)
                return seen | (
                    rows.position[:, None] == torch.cat([torch.arange(start), rows.position])
                )

            monkeypatch.setattr(two_streams_module, "visible", leaky)
        else:
            run = two_streams_module.run_late_rows
            monkeypatch.setattr(
                two_streams_module,
                "run_late_rows",
                lambda *args, position, **kwargs: run(*args, position=2 * position, **kwargs),
            )
        with pytest.warns(UserWarning, match="does not run two copies of a text"):
            logits = teacher_forced_logits(bridge, tokens, PATCH)
        close(logits[0], patched_logits(bridge, tokens[0], PATCH))

    @torch.no_grad()
    def test_an_error_on_two_streams_is_told(self, monkeypatch):
        """As it is raised where versions do not fit each other, which is not the model's fault."""

        def refuse(*args, **kwargs):
            raise TypeError("got an unexpected keyword argument 'cache'")

        bridge, tokens = tiny_bridge("llama"), random_tokens(1, 8)
        monkeypatch.setattr(two_streams_module, "run_late_rows", refuse)
        with pytest.warns(UserWarning, match=r"raised TypeError: got an unexpected .* 'cache'\)"):
            logits = teacher_forced_logits(bridge, tokens, PATCH)
        close(logits[0], patched_logits(bridge, tokens[0], PATCH))

    @torch.no_grad()
    def test_a_patch_that_no_other_position_hears_of_is_no_reason_to_mistrust(self):
        bridge, tokens = tiny_bridge("llama", dtype=torch.float32), random_tokens(1, 40)
        for block in bridge.original_model.model.layers[1:]:
            block.self_attn.o_proj.weight.zero_()
        plain = bridge(tokens)
        # Without a warning, and rounding of float32 is all the difference that there is.
        close(teacher_forced_logits(bridge, tokens, PATCH), plain, 1e-4)

    @torch.no_grad()
    def test_it_is_tried_once_for_each_layer_and_power_of_two(self, monkeypatch):
        bridge, tried = tiny_bridge("llama"), []
        for name in ("_tried_against_steps", "_tried_against_plain"):
            function = getattr(probe, name)
            monkeypatch.setattr(
                probe,
                name,
                lambda *args, name=name, function=function: tried.append(name) or function(*args),
            )
        for n in (3, 20, 33, 60):
            teacher_forced_logits(bridge, random_tokens(1, n), PATCH)
        assert tried == ["_tried_against_steps", *["_tried_against_plain"] * 2]


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_processed_weights(architecture):
    bridge, tokens = tiny_bridge(architecture), random_tokens(9)
    bridge.enable_compatibility_mode()
    found = teacher_forced_logits(bridge, tokens, PATCH)[0]
    # Compatibility mode masks with infinities and normalizes in float32 at places.
    close(found.log_softmax(-1), patched_logits(bridge, tokens, PATCH).log_softmax(-1), 1e-6)


@pytest.mark.parametrize("architecture", ["mamba", "t5"])
def test_models_without_attention_or_with_an_encoder_are_refused(architecture):
    with pytest.raises(NotImplementedError):
        teacher_forced_logits(shared_bridge(architecture), random_tokens(1, 4), PATCH)
