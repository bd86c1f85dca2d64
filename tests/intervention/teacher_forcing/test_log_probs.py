"""Teacher forcing with a patch: every kind of patch, batch and length.

That it equals the step-by-step loop on every architecture is in `test_equivalence`.
"""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_interventions.intervention.effect_map import effect_map
from lens_interventions.intervention.generation.generate import generate
from lens_interventions.intervention.modes import MODES
from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import BackPatch, source_names
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from lens_interventions.model.readout import Readout
from tests.support.clean import left_as_found
from tests.support.exact import close
from tests.support.reference_intervention import patched_logits
from tests.support.tiny import D_VOCAB, random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")


# Grouped queries, sliding windows, soft caps, scaled embeddings, learned positions, no biases.
SOME = ["gpt2", "llama", "gemma2"]


PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


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
            itertools.cycle(itertools.product(MODES, source_names())),
            itertools.cycle(itertools.product((1, (0, 2)), ("raw", "norm"), ("W_E", "W_U"))),
            # Five, which do not go in step with the eight above, as often as there are pairs of a
            # mode and a source.
            itertools.islice(
                itertools.cycle([*itertools.product((None, 2.5), (None, 2)), (4.0, 1)]),
                len(MODES) * len(source_names()),
            ),
            strict=False,
        )
    ]
    logits = teacher_forced_logits(bridge, tokens, patches)
    for patch, row in zip(patches, logits[:, 0], strict=True):
        close(row, patched_logits(bridge, tokens, patch))


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


class TestWhere:
    """Entries that are asked for, of those that `test_any_patch_on_any_batch` holds to a loop."""

    @torch.no_grad()
    @pytest.mark.parametrize("arguments", [{}, {"max_length": 6, "overlap": 2}])
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.filterwarnings("ignore:.*does not run two copies of a text")
    @pytest.mark.parametrize("architecture", ["llama", "gpt_neo"])
    def test_only_these_are_read(self, architecture, side, arguments, monkeypatch):
        bridge, tokens = shared_bridge(architecture), random_tokens(2, 9)
        mask = torch.ones(2, 9, dtype=torch.long)
        mask[1, slice(0, 3) if side == "left" else slice(6, 9)] = 0
        patches = [PATCH, None, dataclasses.replace(PATCH, layer=2, source="random")]
        where = torch.zeros(2, 8, dtype=torch.bool)
        # In both pieces, in what they share, and at padding of one side or the other.
        where[:, [0, 4, 5, 7]] = True
        given = {"attention_mask": mask, "text_seeds": torch.tensor([3, 8]), **arguments}
        whole = teacher_forced_log_probs(bridge, tokens, patches, **given)
        read = []
        logits = Readout.logits
        monkeypatch.setattr(
            Readout,
            "logits",
            lambda self, rows, *rest: read.append(rows) or logits(self, rows, *rest),
        )
        found = teacher_forced_log_probs(bridge, tokens, patches, where=where, **given)
        predicted = (mask[:, 1:] * mask[:, :-1] == 1) & where
        close(found[:, predicted], whole[:, predicted])
        assert torch.equal(found.isnan(), ~predicted.expand(3, -1, -1))
        if architecture == "llama":  # the other is read by its own forward, step by step
            assert sum(rows[..., 0].numel() for rows in read) == 3 * int(predicted.sum())

    def test_gradients_are_those_of_the_entries(self, llama):
        tokens = random_tokens(1, 8)
        where = torch.zeros(1, 7, dtype=torch.bool)
        where[0, [2, 6]] = True
        directions = (0.1 * torch.randn(32, 32).double()).requires_grad_()
        of_both = []
        for chosen in (None, where):
            log_probs = teacher_forced_log_probs(
                llama, tokens, learned_patch(directions), where=chosen, enable_grad=True
            )
            of_both += torch.autograd.grad(log_probs[where].sum(), directions)
        close(*of_both)

    def test_another_shape_is_refused(self, llama):
        tokens = random_tokens(1, 8)
        for where in (torch.ones(1, 8, dtype=torch.bool), torch.ones(1, 7)):
            with pytest.raises(ValueError, match=r"bool for each next token, of shape \(1, 7\)"):
                teacher_forced_log_probs(llama, tokens, PATCH, where=where)
        nothing = torch.zeros(1, 7, dtype=torch.bool)
        assert teacher_forced_log_probs(llama, tokens, PATCH, where=nothing).isnan().all()


PATCHES = st.fixed_dictionaries(
    {
        "layer": st.integers(0, 2) | st.lists(st.integers(0, 2), min_size=1, unique=True),
        "strength": st.floats(-1, 2),
        "mode": st.sampled_from(list(MODES)),
        "scale": st.sampled_from(["raw", "norm", "deviation"]),
        "embedding": st.sampled_from(["W_E", "W_E_centred", "W_U"]),
        "positions": st.sampled_from(["all", "generated"]) | st.sets(st.integers(0, 12)),
        "first_position": st.integers(0, 3),
        "window": st.none() | st.integers(1, 12),
        "gate": st.none() | st.floats(0, 8),
        "gate_on": st.sampled_from(["lens", "output"]),
        "source": st.sampled_from(source_names()),
        "seed": st.integers(0, 2**40),
    }
).map(lambda fields: fields | ({} if fields["gate"] is not None else {"gate_on": "lens"}))


@pytest.mark.filterwarnings("ignore:the patch at positions")
@torch.no_grad()
@settings(max_examples=20)
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
    given = torch.tensor(lengths).clamp(max=prompt_length)
    logits = teacher_forced_logits(
        bridge,
        tokens,
        patches,
        attention_mask=mask,
        prompt_length=given,
        text_seeds=seeds,
    )
    for patch, of_patch in zip(patches, logits, strict=True):
        for row in range(len(lengths)):
            text = tokens[row, mask[row]]
            expected = (
                bridge(text[None])[0]
                if patch is None
                else patched_logits(
                    bridge, text, patch, prompt_length=int(given[row]), text_seed=int(seeds[row])
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

    @pytest.mark.parametrize("options", [{}, {"gate": 4.0, "gate_on": "output"}])
    def test_through_the_run_that_a_back_patch_reads(self, options):
        """By a vector that a hook adds below, against finite differences."""
        bridge, tokens = shared_bridge("gpt2"), random_tokens(2, 8)
        patch = NextTokenPatch(layer=1, strength=0.5, source=BackPatch(2), **options)

        def loss(vector):
            hooks = [("blocks.0.hook_resid_post", lambda resid, hook: resid + vector)]
            return -teacher_forced_log_probs(
                bridge, tokens, patch, fwd_hooks=hooks, enable_grad=True
            ).mean()

        vector = torch.zeros(32).double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(vector), vector)
        for direction in torch.randn(3, 32).double():
            step = 1e-5 * direction
            with torch.no_grad():
                change = (loss(step) - loss(-step)) / 2e-5
            torch.testing.assert_close(change, (gradient * direction).sum(), rtol=1e-6, atol=1e-8)

    def test_no_other_run_without_the_patch_keeps_a_graph(self):
        bridge, tokens = shared_bridge("gpt2"), random_tokens(1, 6)
        patch = NextTokenPatch(layer=1, strength=0.5, source=BackPatch(2))
        seen = []

        def look(resid, hook):
            seen.append(resid.requires_grad)

        with bridge.hooks(fwd_hooks=[("blocks.0.hook_resid_post", look)]):
            patch.fwd_hooks(bridge, tokens)
            generate(bridge, tokens, patch, max_new_tokens=2)
            effect_map(bridge, tokens, lambda logits: logits[0, -1, 5], patch=patch)
            teacher_forced_logits(bridge, tokens, patch)
        assert seen
        assert not any(seen)

    def test_none_unless_asked(self, llama):
        assert not teacher_forced_logits(llama, random_tokens(1, 4), PATCH).requires_grad
        assert torch.is_grad_enabled()


def test_patches_that_differ_in_their_seed_alone_draw_apart(llama):
    tokens = random_tokens(2, 9)
    patches = [
        NextTokenPatch(layer=1, strength=0.7, source="random", scale="norm", seed=seed)
        for seed in (0, 1)
    ]
    together = teacher_forced_log_probs(llama, tokens, patches)
    alone = torch.stack([teacher_forced_log_probs(llama, tokens, patch) for patch in patches])
    # Sums of float64 in another order.
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    assert (together[0] - together[1]).abs().max() > 1e-3
