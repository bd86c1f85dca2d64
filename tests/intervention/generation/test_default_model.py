"""Generation on the embedded model, against transformers on the same weights."""

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import lens_interventions as li
from lens_interventions.materials import prompts
from lens_interventions.model.embedded import embedded_model
from tests.support.clean import left_as_found

NEW = 16
# Where two ways of computing the same part, the model must have been as good as undecided.
UNDECIDED = 1e-4


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32).eval()


def greedy(model, prompts):
    """New tokens by `generate` of transformers, which wants padding on the left."""
    width = prompts.shape[1]
    tokens = torch.stack([row.roll(int((row < 0).sum())) for row in prompts])
    out = model.generate(
        tokens.clamp(min=0),
        attention_mask=(tokens >= 0).long(),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
    )
    return out[:, width:].tolist()


@torch.no_grad()
def margin(model, tokens):
    """By how much the likeliest next token leads the second, in logits."""
    best = model(torch.tensor([tokens])).logits[0, -1].topk(2).values
    return float(best[0] - best[1])


def test_strength_zero_is_generate_of_transformers(default_bridge, model):
    texts = [prompt.text for prompt in prompts()[::7]][:8]
    texts += ["Once upon a time", "The once-blue skies of the planet Earth"]
    patch = li.NextTokenPatch(layer=24, strength=0.0)
    with left_as_found(default_bridge):
        ours = li.generate(default_bridge, texts, patch, max_new_tokens=NEW)
    theirs = greedy(model, ours.prompts)
    parted = []
    for row in range(10):
        mine = ours.tokens[row, : ours.lengths[row]].tolist()
        same = next(
            (i for i, (a, b) in enumerate(zip(mine, theirs[row], strict=False)) if a != b),
            len(mine),
        )
        if same < len(mine):
            prompt = ours.prompts[row][ours.prompts[row] >= 0].tolist()
            parted.append((row, same, margin(model, prompt + mine[:same])))
        else:
            assert len(mine) == NEW or ours.finished[row]
    assert all(lead < UNDECIDED for _, _, lead in parted), parted
    # Else the comparison would say little.
    assert len(parted) <= 1, parted


def test_a_patch_at_full_strength_changes_what_is_said(default_bridge):
    patches = [None, li.NextTokenPatch(layer=24, strength=1.0)]
    out = li.generate(default_bridge, "The capital of France is", patches, max_new_tokens=8)
    assert "Paris" in out.texts[0]
    assert out.tokens[0].tolist() != out.tokens[1].tolist()
