"""Gradients through both streams: against finite differences and against the loop."""

import pytest
import torch

from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from tests.support.tiny import D_VOCAB, random_tokens, shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = NextTokenPatch(layer=1, strength=0.5, scale="norm")


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
