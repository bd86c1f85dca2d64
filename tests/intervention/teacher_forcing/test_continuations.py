"""Continuations of given contexts: sums of what teacher forcing says of each token."""

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.teacher_forcing.continuations import continuation_log_probs

pytestmark = pytest.mark.usefixtures("exact")

CONTINUED = [([5, 17, 4], [44, 9]), ([33], [70]), ([70, 70, 12, 99], [8, 31, 60, 9])]


@pytest.mark.parametrize("bridge", ["gpt2", "gemma3_text"], indirect=True)
def test_sums_are_of_teacher_forced_log_probs(bridge):
    patch = li.NextTokenPatch(layer=1, strength=0.7, source="random", positions="generated")
    seeds = torch.tensor([3, 4, 5])
    found, greedy = continuation_log_probs(bridge, CONTINUED, patch, text_seeds=seeds)
    for row, (context, continuation) in enumerate(CONTINUED):
        options = {"prompt_length": len(context), "text_seeds": seeds[row : row + 1]}
        whole = [*context, *continuation]
        log_probs = li.teacher_forced_log_probs(bridge, whole, patch, **options)
        assert float(found[row]) == pytest.approx(float(log_probs[0, len(context) - 1 :].sum()))
        logits = li.teacher_forced_logits(bridge, whole, patch, **options)
        likeliest = logits[0, len(context) - 1 : -1].argmax(-1).tolist()
        assert bool(greedy[row]) == (likeliest == continuation)


def test_the_whole_context_of_the_model_can_be_used(llama):
    """The last token is predicted and not read."""
    read = int(llama.cfg.n_ctx)
    found, _ = continuation_log_probs(
        llama, [([5] * (read - 1), [7, 9])], None, text_seeds=torch.zeros(1, dtype=torch.long)
    )
    logits = llama(torch.tensor([[5] * (read - 1) + [7]]))[0].detach().log_softmax(-1)
    assert float(found) == pytest.approx(float(logits[-2, 7] + logits[-1, 9]))
