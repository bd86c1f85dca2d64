"""The passes of texts: in chunks and pieces, under the user's hooks, through failures."""

import dataclasses
import re

import pytest
import torch

from lens_interventions.intervention.ablation import ablate_directions
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import BackPatch
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from tests.support.architectures import ARCHITECTURES, N_CTX
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


# Grouped queries, sliding windows, soft caps, scaled embeddings, learned positions, no biases.
SOME = ["gpt2", "llama", "gemma2"]


@torch.no_grad()
def test_a_model_that_takes_a_mask_for_each_text_alone(monkeypatch):
    config = {
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 3,
        "attention_heads": 4,
        "max_position_embeddings": N_CTX,
    }
    monkeypatch.setitem(ARCHITECTURES, "xglm", config)
    # Its masks have no float64.
    bridge, tokens = tiny_bridge("xglm", dtype=torch.float32), random_tokens(2, 8)
    found = teacher_forced_logits(bridge, tokens, PATCH)
    expected = torch.stack([patched_logits(bridge, text, PATCH) for text in tokens])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_hooks_on_embeddings_act_once():
    gpt2, seen = tiny_bridge("gpt2"), []
    listening = [("hook_pos_embed", lambda tensor, hook: seen.append(tensor.shape[1]))]
    with gpt2.hooks(fwd_hooks=listening):
        teacher_forced_logits(gpt2, random_tokens(8), PATCH)
    assert seen == [8]


@torch.no_grad()
@pytest.mark.parametrize("bridge", SOME, indirect=True)
@pytest.mark.parametrize("window", [None, 3])
def test_texts_longer_than_a_chunk(bridge, window, monkeypatch):
    monkeypatch.setattr("lens_interventions.intervention.teacher_forcing.two_streams.MAX_CHUNK", 5)
    tokens, patch = random_tokens(18), dataclasses.replace(PATCH, window=window)
    close(teacher_forced_logits(bridge, tokens, patch)[0], patched_logits(bridge, tokens, patch))


@torch.no_grad()
def test_log_probs_of_texts_longer_than_a_chunk(llama, monkeypatch):
    """Each chunk reads the next tokens of its own positions."""
    monkeypatch.setattr("lens_interventions.intervention.teacher_forcing.two_streams.MAX_CHUNK", 5)
    tokens = random_tokens(2, 18)
    logits = torch.stack([patched_logits(llama, text, PATCH) for text in tokens])
    expected = (
        logits.view(2, 18, -1)[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    )
    close(teacher_forced_log_probs(llama, tokens, PATCH), expected)
    wanted = torch.arange(17).expand(2, -1) % 4 == 1
    found = teacher_forced_log_probs(llama, tokens, PATCH, where=wanted)
    close(found[wanted], expected[wanted])
    assert found[~wanted].isnan().all()


@torch.no_grad()
@pytest.mark.parametrize(
    "patch",
    [
        PATCH,
        dataclasses.replace(PATCH, source=BackPatch(2)),
        dataclasses.replace(PATCH, gate=4.5, gate_on="output"),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("layer", [0, 1])
def test_texts_that_run_in_chunks_below_the_patch(architecture, layer, patch, monkeypatch):
    """What the clean run keeps of each chunk is put together in order."""
    llama, tokens = shared_bridge(architecture), random_tokens(2, 24)
    patch = dataclasses.replace(patch, layer=layer)
    whole = teacher_forced_log_probs(llama, tokens, [patch, None])
    assert (whole[0] - whole[1]).abs().max() > 1e-3
    monkeypatch.setattr("lens_interventions.model.residuals._WHOLE", 8)
    monkeypatch.setattr("lens_interventions.model.residuals._CHUNK_ROWS", 14)
    close(teacher_forced_log_probs(llama, tokens, [patch, None]), whole)


class TestLongTexts:
    @torch.no_grad()
    @pytest.mark.parametrize("overlap", [0, 3, None])
    def test_pieces(self, llama, overlap):
        tokens, size = random_tokens(2, 55), 20
        shared = size // 2 if overlap is None else overlap
        found = teacher_forced_logits(llama, tokens, PATCH, max_length=size, overlap=overlap)
        for position in (0, size - 1, size, 54):
            # The first window that has the position: windows start every size - shared tokens.
            window = max(0, -(-(position + 1 - size) // (size - shared)))
            start = window * (size - shared)
            text = tokens[:, start : start + size]
            expected = teacher_forced_logits(llama, text, PATCH)[:, position - start]
            close(found[:, position], expected)
        log_probs = teacher_forced_log_probs(llama, tokens, PATCH, max_length=size, overlap=overlap)
        expected = found[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        close(log_probs, expected)

    @torch.no_grad()
    @pytest.mark.parametrize("overlap", [0, 3, None])
    def test_every_piece_begins_with_the_bos_if_the_texts_do(self, llama, overlap):
        bos = torch.full((2, 1), llama.tokenizer.bos_token_id)
        tokens, size = torch.cat([bos, random_tokens(2, 54)], dim=1), 20
        shared = 9 if overlap is None else overlap  # half of what a piece has beside the BOS
        found = teacher_forced_logits(llama, tokens, PATCH, max_length=size, overlap=overlap)
        for position in (0, 1, size - 1, size, 54):
            piece = max(0, -(-(position - 19) // (19 - shared)))
            start = 1 + piece * (19 - shared)
            text = torch.cat([bos, tokens[:, start : start + 19]], dim=1)
            expected = teacher_forced_logits(llama, text, PATCH)[:, position - start + 1]
            close(found[:, position], expected)

    @torch.no_grad()
    def test_pieces_are_as_long_as_the_context_by_default(self, llama):
        tokens = random_tokens(1, N_CTX + 30)
        log_probs = teacher_forced_log_probs(llama, tokens, PATCH)
        assert log_probs.shape == (1, N_CTX + 29)
        within = teacher_forced_log_probs(llama, tokens[:, :N_CTX], PATCH)
        close(log_probs[:, : N_CTX - 1], within)

    @torch.no_grad()
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_is_not_counted(self, llama, side):
        tokens, padding = random_tokens(2, 12), torch.zeros(2, N_CTX).long()
        parts = [padding, tokens] if side == "left" else [tokens, padding]
        patch = dataclasses.replace(PATCH, positions=[1, 4])
        mask = torch.cat([part > 0 for part in parts], dim=1)
        found = teacher_forced_log_probs(
            llama, torch.cat(parts, dim=1), patch, attention_mask=mask.int()
        )
        assert found.shape == (2, N_CTX + 11)
        expected = teacher_forced_log_probs(llama, tokens, patch)
        close(found[~found.isnan()].view(2, 11), expected)

    @torch.no_grad()
    def test_pieces_draw_for_themselves(self, llama):
        tokens = random_tokens(1, 10).repeat(1, 2)
        patch = dataclasses.replace(PATCH, source="random")
        logits = teacher_forced_logits(llama, tokens, patch, max_length=10, overlap=0)[0]
        assert torch.equal(logits[0], logits[10])
        assert (logits[1:10] != logits[11:]).any()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"max_length": N_CTX + 1}, f"model's context {N_CTX}, got {N_CTX + 1}"),
            ({"max_length": 10, "overlap": 10}, "overlap must be from 0 to 9"),
            ({"max_length": 10, "prompt_length": 3}, "count from a text's first token"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, llama, arguments, message):
        with pytest.raises(ValueError, match=message):
            teacher_forced_logits(llama, random_tokens(1, 20), PATCH, **arguments)

    def test_texts_that_begin_otherwise_are_read_apart(self, llama):
        """Pieces begin as the texts do, so a batch of both would read them in other places."""
        tokens = random_tokens(2, 20)
        tokens[0, 0] = llama.tokenizer.bos_token_id
        assert teacher_forced_log_probs(llama, tokens, PATCH).shape == (2, 19)
        with pytest.raises(ValueError, match="some texts begin with the BOS token and some do not"):
            teacher_forced_log_probs(llama, tokens, PATCH, max_length=10)
        with pytest.raises(
            ValueError, match="overlap must be from 0 to 8, below max_length=10 without"
        ):
            teacher_forced_log_probs(llama, tokens[:1], PATCH, max_length=10, overlap=9)
        with pytest.raises(
            ValueError,
            match=rf"from 2 \(with the BOS token\) to the model's context {N_CTX}, got 1",
        ):
            teacher_forced_log_probs(llama, tokens[:1], PATCH, max_length=1)


class TestOtherHooks:
    @torch.no_grad()
    def test_directions_that_are_ablated_below_the_patch_act(self, llama):
        """These hooks are the library's too, and act on each position alone."""
        tokens, patch = random_tokens(1, 8), dataclasses.replace(PATCH, layer=2)
        ablated = ablate_directions(1, torch.eye(llama.cfg.d_model, dtype=torch.float64)[:2])
        plain = teacher_forced_logits(llama, tokens, patch)
        with llama.hooks(fwd_hooks=ablated):
            found = teacher_forced_logits(llama, tokens, patch)
        assert not torch.allclose(found, plain)
        given = teacher_forced_logits(llama, tokens, patch, fwd_hooks=ablated)
        close(found, given)

    def test_hooks_of_a_patch_are_refused(self, llama):
        """They write each next token where it is predicted."""
        tokens = random_tokens(1, 8)
        with llama.hooks(fwd_hooks=PATCH.fwd_hooks(llama, tokens)):
            for patch in (None, dataclasses.replace(PATCH, layer=PATCH.layer + 1)):
                with pytest.raises(ValueError, match=r"hooks of a patch are on the bridge.*patch="):
                    teacher_forced_log_probs(llama, tokens, patch)

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
        with pytest.raises(ValueError, match="not a number, first under patch 1 in text 0:"):
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
                ValueError,
                match=rf"a hook on {re.escape(name)}( = .*)?: from block 1 up",
            ),
        ):
            teacher_forced_logits(llama, tokens, PATCH)

    @torch.no_grad()
    @pytest.mark.parametrize("architecture", ["llama", "mpt"])
    @pytest.mark.parametrize("layer", [0, 2])
    def test_without_a_patch_hooks_on_all_blocks_act(self, architecture, layer):
        bridge, tokens = shared_bridge(architecture), random_tokens(2, 8)

        def at_the_third(value, hook):
            return torch.cat([value[:, :3], value[:, 3:4] * 2, value[:, 4:]], dim=1)

        with bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", at_the_third)]):
            found = teacher_forced_logits(bridge, tokens, [None, None])
            expected = bridge(tokens)
        close(found, expected.expand(2, -1, -1, -1))
        assert (found[0] - teacher_forced_logits(bridge, tokens, None)).abs().max() > 1e-3

    @pytest.mark.parametrize("name", ["ln_final.hook_scale", "unembed.hook_out"])
    def test_without_a_patch_hooks_that_reading_leaves_out_are_refused(self, llama, name):
        above = [(name, lambda value, hook: value * 1)]
        with (
            llama.hooks(fwd_hooks=above),
            pytest.raises(ValueError, match=f"a hook on {name}, which would not act"),
        ):
            teacher_forced_logits(llama, random_tokens(1, 8), None)

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
        monkeypatch.setattr(
            "lens_interventions.intervention.teacher_forcing.two_streams.MAX_CHUNK", 3
        )
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


@pytest.mark.parametrize("point", ["hook_resid_pre", "attn.hook_z", "hook_mlp_out"])
@pytest.mark.parametrize("layers", [(1,), (1, 2), (2, 1)])
def test_a_hook_on_the_lowest_patched_block_is_refused(llama, point, layers):
    patches = [dataclasses.replace(PATCH, layer=layer) for layer in layers]
    with (
        llama.hooks(fwd_hooks=[(f"blocks.1.{point}", lambda tensor, hook: 2 * tensor)]),
        pytest.raises(ValueError, match="there is a hook on"),
    ):
        teacher_forced_log_probs(llama, random_tokens(1, 8), patches)


def test_texts_that_fit_in_one_piece_may_begin_otherwise(llama):
    tokens = random_tokens(2, 10)
    tokens[0, 0], tokens[1, 0] = llama.tokenizer.bos_token_id, 5
    found = teacher_forced_log_probs(llama, tokens, PATCH, max_length=10)
    torch.testing.assert_close(found, teacher_forced_log_probs(llama, tokens, PATCH))
