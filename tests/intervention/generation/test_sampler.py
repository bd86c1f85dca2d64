"""Sampling and stopping are those of transformers; a draw is a function of seed and position."""

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import lens_interventions as li

# Bridges are booted here without `load_model`, which mends TransformerLens's cache.
from lens_interventions.model import attention_cache as attention_cache
from tests.support.tiny import D_VOCAB, shared_bridge

EOS = 1
PROMPTS = [[5, 17, 4, 44, 17, 60, 9, 9, 31, 8], [33], [70, 70, 12, 99]]


@pytest.mark.parametrize(
    "processors",
    [
        [],
        [RepetitionPenaltyLogitsProcessor(1.3)],
        [NoRepeatNGramLogitsProcessor(2)],
        [RepetitionPenaltyLogitsProcessor(1.1), NoRepeatNGramLogitsProcessor(3)],
    ],
    ids=["none", "penalty", "ngram", "both"],
)
@pytest.mark.parametrize("bridge", ["llama", "gpt_neox"], indirect=True)
def test_greedy_is_generate_of_transformers(bridge, processors):
    prompt = torch.tensor(PROMPTS[:1])
    theirs = bridge.original_model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=20,
        do_sample=False,
        logits_processor=LogitsProcessorList(processors),
    )
    ours = li.generate(bridge, prompt, max_new_tokens=20, logits_processor=processors)
    assert ours.whole.tokens.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    "processors",
    [[], [TopKLogitsWarper(5)], [TopPLogitsWarper(0.6)], [MinPLogitsWarper(0.2)]],
    ids=["none", "top-k", "top-p", "min-p"],
)
def test_samples_follow_the_processed_distribution(processors):
    bridge = shared_bridge("qwen2")
    prompt, temperature, draws = PROMPTS[0], 1.7, 2000
    logits = bridge(torch.tensor([prompt]))[:, -1] / temperature
    for processor in processors:
        logits = processor(torch.tensor([prompt]), logits)
    probabilities = logits.softmax(-1)[0]
    out = li.generate(
        bridge,
        [prompt] * draws,
        max_new_tokens=1,
        do_sample=True,
        temperature=temperature,
        logits_processor=processors,
        chunk_size=len(prompt),
    )
    counts = out.tokens[:, 0].bincount(minlength=D_VOCAB)
    assert (counts[probabilities == 0] == 0).all()
    # Five standard deviations of a binomial, so that 112 tokens pass with near certainty.
    deviation = (draws * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - draws * probabilities).abs() <= 5 * deviation + 1).all()
    # The log-probabilities are the model's own all the same.
    own = bridge(torch.tensor([prompt]))[0, -1].log_softmax(-1)
    torch.testing.assert_close(out.log_probs[:, 0], own[out.tokens[:, 0]], rtol=0, atol=1e-9)


def test_samples_are_functions_of_seed_and_position():
    bridge = shared_bridge("llama")
    sampled = {"max_new_tokens": 12, "do_sample": True, "stop_at_eos": False}
    first, again = (li.generate(bridge, [PROMPTS[0]] * 3, seed=4, **sampled) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert len({tuple(row) for row in first.tokens.tolist()}) == 3
    assert first.seeds.tolist() == [4, 5, 6]
    other = li.generate(bridge, [PROMPTS[0]] * 3, seed=[6, 5, 4], **sampled)
    assert torch.equal(first.tokens, other.tokens.flip(0))


@pytest.mark.usefixtures("as_users_run")
def test_seeds_come_in_a_list_a_tensor_or_an_array():
    options = {"max_new_tokens": 1, "do_sample": True}
    for seed in ([6, 4, 9], torch.tensor([6, 4, 9]), np.array([6, 4, 9])):
        out = li.generate(shared_bridge("llama"), PROMPTS, seed=seed, **options)
        assert out.seeds.tolist() == [6, 4, 9]
    for seed in (torch.tensor(6), np.int64(6)):
        out = li.generate(shared_bridge("llama"), PROMPTS, seed=seed, **options)
        assert out.seeds.tolist() == [6, 7, 8]
    for seed in (2**64 + 6, 6 - 2**70, [2**64 + 6, 7 - 2**64, 8]):
        out = li.generate(shared_bridge("llama"), PROMPTS, seed=seed, **options)
        assert out.seeds.tolist() == [6, 7, 8]
    with pytest.raises(ValueError, match="2 seeds for 3 prompts"):
        li.generate(shared_bridge("llama"), PROMPTS, seed=torch.tensor([6, 4]), **options)


def test_ends_at_end_of_text_and_at_criteria():
    bridge = shared_bridge("olmo2")
    free = li.generate(bridge, PROMPTS, max_new_tokens=8, stop_at_eos=False)
    assert not free.finished.any()
    assert free.lengths.tolist() == [8, 8, 8]
    end = int(free.tokens[1, 3])
    at_end = [int(row.tolist().index(end)) + 1 if end in row else 8 for row in free.tokens]
    bridge.original_model.generation_config.eos_token_id = [end, EOS]
    try:
        ended = li.generate(bridge, PROMPTS, max_new_tokens=8)
    finally:
        bridge.original_model.generation_config.eos_token_id = EOS
    assert ended.lengths.tolist() == at_end
    assert ended.finished.tolist() == [
        length < 8 or row[-1] == end for length, row in zip(at_end, free.tokens, strict=True)
    ]
    for row, length in enumerate(at_end):
        assert ended.tokens[row, :length].tolist() == free.tokens[row, :length].tolist()

    class AtThird(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            assert scores.shape == (len(input_ids), D_VOCAB)
            return torch.tensor([len(row) == len(PROMPTS[2]) + 3 for row in input_ids])

    stopped = li.generate(
        bridge, PROMPTS[2:], max_new_tokens=8, stopping_criteria=[AtThird()], stop_at_eos=False
    )
    assert stopped.tokens.shape == (1, 3)
    assert stopped.finished.tolist() == [True]
