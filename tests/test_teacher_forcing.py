"""Teacher forcing with a patch: every kind of patch, batch and length, gradients, and what is left.

That it equals the step-by-step loop on every architecture is in `test_equivalence`.
"""

import dataclasses
import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions import probe
from lens_interventions import two_streams as two_streams_module
from lens_interventions.intervention import NextTokenPatch
from lens_interventions.modes import MODES
from lens_interventions.sources import SOURCES
from lens_interventions.teacher_forcing import teacher_forced_log_probs, teacher_forced_logits
from tests.clean import left_as_found
from tests.reference_intervention import patched_logits
from tests.tiny import D_VOCAB, N_CTX, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

# Grouped queries, sliding windows, soft caps, scaled embeddings, learned positions, no biases.
SOME = ["gpt2", "llama", "gemma2"]
PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


def random_tokens(*shape):
    return torch.randint(4, D_VOCAB, shape)


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("bridge", SOME, indirect=True)
def test_every_combination(bridge):
    tokens = random_tokens(6)
    patches = [
        NextTokenPatch(
            layer=layer,
            strength=0.7,
            mode=mode,
            source=source,
            scale=scale,
            embedding=embedding,
            gate=gate,
            window=window,
        )
        for (mode, source), (layer, scale, embedding), (gate, window) in zip(
            itertools.cycle(itertools.product(MODES, SOURCES)),
            itertools.cycle(itertools.product((1, (0, 2)), ("raw", "norm"), ("W_E", "W_U"))),
            # 36 in all; the cycles of 18, 8 and 4 meet every pair of kinds.
            itertools.islice(itertools.cycle(itertools.product((None, 2.5), (None, 2))), 36),
            strict=False,
        )
    ]
    logits = teacher_forced_logits(bridge, tokens, patches)
    for patch, row in zip(patches, logits[:, 0], strict=True):
        close(row, patched_logits(bridge, tokens, patch))


@torch.no_grad()
@pytest.mark.parametrize("bridge", SOME, indirect=True)
@pytest.mark.parametrize("window", [None, 3])
def test_texts_longer_than_a_chunk(bridge, window, monkeypatch):
    monkeypatch.setattr("lens_interventions.text_passes.MAX_CHUNK", 5)
    tokens, patch = random_tokens(18), dataclasses.replace(PATCH, window=window)
    close(teacher_forced_logits(bridge, tokens, patch)[0], patched_logits(bridge, tokens, patch))


@torch.no_grad()
def test_log_probs_are_those_of_the_logits(llama):
    tokens = random_tokens(3, 11)
    patches = [PATCH, None, dataclasses.replace(PATCH, layer=2)]
    logits = teacher_forced_logits(llama, tokens, patches)
    log_probs = teacher_forced_log_probs(llama, tokens, patches)
    expected = logits[:, :, :-1].log_softmax(-1)
    expected = expected.gather(-1, tokens[:, 1:].expand(3, -1, -1)[..., None])[..., 0]
    assert log_probs.shape == (3, 3, 10)
    close(log_probs, expected)


@torch.no_grad()
def test_several_patches_are_what_each_is_alone(llama):
    tokens = random_tokens(2, 8)
    patches = [
        NextTokenPatch(layer=2, strength=0.3),
        None,
        NextTokenPatch(layer=0, strength=0.4, mode="add"),
        NextTokenPatch(layer=2, strength=0.9, window=2),
        NextTokenPatch(layer=(2, 1), strength=0.6, gate=3.0),
        NextTokenPatch(layer=2, strength=0.8, source="random"),
    ]
    together = teacher_forced_log_probs(llama, tokens, patches)
    for patch, row in zip(patches, together, strict=True):
        close(row, teacher_forced_log_probs(llama, tokens, patch))
    close(teacher_forced_logits(llama, tokens, None), llama(tokens))
    with pytest.raises(ValueError, match="list of patches is empty"):
        teacher_forced_logits(llama, tokens, [])


class TestInput:
    @torch.no_grad()
    @pytest.mark.parametrize("bridge", SOME, indirect=True)
    def test_padding_on_either_side(self, bridge):
        patch = dataclasses.replace(PATCH, source="shuffled")
        texts = [random_tokens(n) for n in (9, 4, 1)]
        expected = [patched_logits(bridge, text, patch) for text in texts]
        for left in (True, False):
            tokens, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
            places = [slice(9 - len(t), 9) if left else slice(0, len(t)) for t in texts]
            for row, (text, place) in enumerate(zip(texts, places, strict=True)):
                tokens[row, place], mask[row, place] = text, 1
            logits = teacher_forced_logits(bridge, tokens, patch, attention_mask=mask)
            log_probs = teacher_forced_log_probs(bridge, tokens, patch, attention_mask=mask)
            for row, place in enumerate(places):
                close(logits[row, place], expected[row])
                chosen = expected[row][:-1].log_softmax(-1).gather(-1, texts[row][1:, None])
                close(log_probs[row, place.start : place.stop - 1], chosen[:, 0])
            assert torch.equal(logits.isnan().all(-1), mask == 0)
            assert torch.equal(log_probs.isnan(), (mask[:, 1:] * mask[:, :-1]) == 0)

    @torch.no_grad()
    def test_texts(self, llama):
        texts = ["the time they say", "other times"]
        together = teacher_forced_log_probs(llama, texts, PATCH)
        for text, row in zip(texts, together, strict=True):
            alone = teacher_forced_log_probs(llama, llama.to_tokens(text), PATCH)
            close(row[: alone.shape[1]], alone[0])
        bare = teacher_forced_log_probs(llama, texts[0], PATCH, prepend_bos=False)
        assert bare.shape[1] == together.shape[1] - 1

    @torch.no_grad()
    def test_one_token(self, llama):
        tokens = random_tokens(1, 1)
        close(teacher_forced_logits(llama, tokens, PATCH), llama(tokens))
        assert teacher_forced_log_probs(llama, tokens, PATCH).shape == (1, 0)


class TestLongTexts:
    @torch.no_grad()
    @pytest.mark.parametrize("overlap", [0, 3, None])
    def test_windows(self, llama, overlap):
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
    def test_the_context_is_the_window_by_default(self, llama):
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
    def test_windows_draw_for_themselves(self, llama):
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


def learned_patch(directions):
    def learned(site, e, _s, a):
        return site.resid + a * e @ directions

    return NextTokenPatch(layer=(1, 2), strength=1.0, mode=learned)


class TestGradients:
    # Layer norms stay in float64, RMS norms round to float32: too coarse for differences of 1e-5.
    @pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "starcoder2"])
    def test_a_learned_write(self, architecture):
        """Through both streams, several chunks and a second layer, against finite differences."""
        tokens, bridge = random_tokens(1, 8), shared_bridge(architecture)

        def loss(directions):
            log_probs = teacher_forced_log_probs(
                bridge, tokens, learned_patch(directions), enable_grad=True
            )
            return -log_probs.mean()

        directions = (0.1 * torch.randn(32, 32).double()).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(directions), directions)
        for direction in torch.randn(3, 32, 32).double():
            step = 1e-5 * direction
            with torch.no_grad():
                change = (loss(directions + step) - loss(directions - step)) / 2e-5
            torch.testing.assert_close(change, (gradient * direction).sum(), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("architecture", ["llama", "gemma2", "mixtral", "gpt_neo"])
    @pytest.mark.filterwarnings("ignore:.*does not run two copies of a text")
    def test_a_learned_write_against_the_loop(self, architecture):
        """Against the gradient through runs of their own for each position."""
        tokens, bridge = random_tokens(8), shared_bridge(architecture)
        directions = (0.1 * torch.randn(32, 32).double()).requires_grad_()
        patch = learned_patch(directions)
        weights = torch.randn(8, D_VOCAB).double()
        logits = teacher_forced_logits(bridge, tokens, patch, enable_grad=True)[0]
        rows = []
        for stop in range(1, 9):
            prefix = tokens[None, :stop]
            hooks = patch.fwd_hooks(bridge, prefix)
            rows.append(bridge.run_with_hooks(prefix, fwd_hooks=hooks)[0, -1])
        found, expected = (
            torch.autograd.grad((weights * values).sum(), directions)[0]
            for values in (logits, torch.stack(rows))
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))

    def test_the_weights_of_late_and_early_blocks(self):
        bridge, tokens = tiny_bridge("gpt2"), random_tokens(2, 6)

        def loss():
            return -teacher_forced_log_probs(bridge, tokens, PATCH, enable_grad=True).mean()

        for layer in (0, 2):
            weight = bridge.original_model.transformer.h[layer].mlp.c_proj.weight
            (gradient,) = torch.autograd.grad(loss(), weight)
            direction = torch.randn_like(weight)
            with torch.no_grad():
                weight += 1e-5 * direction
                up = loss()
                weight -= 2e-5 * direction
                change = (up - loss()) / 2e-5
                weight += 1e-5 * direction
            torch.testing.assert_close(change, (gradient * direction).sum(), rtol=1e-6, atol=1e-9)

    def test_none_unless_asked(self, llama):
        assert not teacher_forced_logits(llama, random_tokens(1, 4), PATCH).requires_grad
        assert torch.is_grad_enabled()


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
        monkeypatch.setattr("lens_interventions.text_passes.MAX_CHUNK", 3)
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
        for name in ("_agrees_with_steps", "_agrees_with_plain"):
            function = getattr(probe, name)
            monkeypatch.setattr(
                probe,
                name,
                lambda *args, name=name, function=function: tried.append(name) or function(*args),
            )
        for n in (3, 20, 33, 60):
            teacher_forced_logits(bridge, random_tokens(1, n), PATCH)
        assert tried == ["_agrees_with_steps", *["_agrees_with_plain"] * 2]


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


PATCHES = st.fixed_dictionaries(
    {
        "layer": st.integers(0, 2) | st.lists(st.integers(0, 2), min_size=1, unique=True),
        "strength": st.floats(-1, 2),
        "mode": st.sampled_from(list(MODES)),
        "scale": st.sampled_from(["raw", "norm"]),
        "embedding": st.sampled_from(["W_E", "W_U"]),
        "positions": st.sampled_from(["all", "generated"]) | st.sets(st.integers(0, 12)),
        "window": st.none() | st.integers(1, 12),
        "gate": st.none() | st.floats(0, 8),
        "source": st.sampled_from(list(SOURCES)),
        "seed": st.integers(0, 2**40),
    }
)


@torch.no_grad()
@settings(max_examples=25)
@given(
    architecture=st.sampled_from(SOME),
    patches=st.lists(PATCHES | st.none(), min_size=1, max_size=3),
    lengths=st.lists(st.integers(1, 10), min_size=1, max_size=3),
    left=st.booleans(),
    prompt_length=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_any_patch_on_any_batch(architecture, patches, lengths, left, prompt_length, seed):
    bridge, generator = shared_bridge(architecture), torch.Generator().manual_seed(seed)
    patches = [None if fields is None else NextTokenPatch(**fields) for fields in patches]
    width = max(lengths)
    tokens = torch.randint(4, D_VOCAB, (len(lengths), width), generator=generator)
    column, length = torch.arange(width), torch.tensor(lengths)[:, None]
    mask = column >= width - length if left else column < length
    seeds = torch.arange(len(lengths)) + seed
    logits = teacher_forced_logits(
        bridge,
        tokens,
        patches,
        attention_mask=mask,
        prompt_length=prompt_length,
        text_seeds=seeds,
    )
    for patch, of_patch in zip(patches, logits, strict=True):
        for row in range(len(lengths)):
            text = tokens[row, mask[row]]
            expected = (
                bridge(text[None])[0]
                if patch is None
                else patched_logits(
                    bridge, text, patch, prompt_length=prompt_length, text_seed=int(seeds[row])
                )
            )
            close(of_patch[row, mask[row]], expected, 1e-8)


@torch.no_grad()
def test_the_default_model(default_bridge):
    tokens = default_bridge.to_tokens("People say plasma, they mean a state of matter")[0]
    patch = NextTokenPatch(layer=(20, 26), strength=0.3, scale="norm", gate=1.0)
    with left_as_found(default_bridge):
        logits = teacher_forced_logits(default_bridge, tokens, patch)[0]
    expected = patched_logits(default_bridge, tokens, patch)
    # Float32 over 30 layers: 1e-4, where the patch moves logits by ten.
    close(logits, expected, 2e-3)
    assert (logits - default_bridge(tokens)[0]).abs().max() > 1
