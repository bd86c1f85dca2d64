"""A patch under transformers' own `model.generate`: the tokens of `li.generate`, or a refusal."""

import pytest
import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    MaxLengthCriteria,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

import lens_interventions as li
from lens_interventions.model.attention_cache import as_argument
from tests.support.tiny import shared_bridge

pytestmark = pytest.mark.usefixtures("exact")

PATCH = li.NextTokenPatch(layer=1, strength=0.9, scale="norm")
PROMPT = torch.tensor([[5, 17, 4, 44, 17, 60]])
# Of different lengths, padded on the left as transformers wants it.
PROMPTS = torch.tensor([[5, 17, 4, 44, 17, 60], [2, 2, 2, 70, 12, 99]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]])


def under_transformers(bridge, ids, patch=PATCH, *, seed=0, **options):
    function = li.as_custom_generate(bridge, patch, seed=seed)
    return bridge.original_model.generate(ids, custom_generate=function, **options)


def test_greedy_tokens_are_those_of_generate(llama):
    rules = {"logits_processor": LogitsProcessorList([NoRepeatNGramLogitsProcessor(2)])}
    out = under_transformers(llama, PROMPTS, attention_mask=MASK, max_new_tokens=8, **rules)
    expected = li.generate(
        llama, PROMPTS, PATCH, attention_mask=MASK, max_new_tokens=8, **rules
    ).tokens
    assert torch.equal(out[:, :6], PROMPTS)
    assert torch.equal(out[:, 6:], expected.masked_fill(expected < 0, 2))
    plain = li.generate(llama, PROMPTS, attention_mask=MASK, max_new_tokens=8, **rules).tokens
    assert not torch.equal(expected, plain)


def test_sampled_tokens_are_those_of_generate(llama):
    """Each of several continuations of a prompt has a seed of its own."""
    out = under_transformers(
        llama,
        PROMPT,
        seed=3,
        max_length=14,
        do_sample=True,
        temperature=0.8,
        top_k=5,
        num_return_sequences=3,
        eos_token_id=None,
    )
    expected = li.generate(
        llama,
        PROMPT.expand(3, -1),
        PATCH,
        max_new_tokens=8,
        do_sample=True,
        logits_processor=[TemperatureLogitsWarper(0.8), TopKLogitsWarper(5)],
        stop_at_eos=False,
        seed=3,
    )
    assert torch.equal(out[:, 6:], expected.tokens)
    assert len(set(map(tuple, out.tolist()))) == 3


def test_without_a_patch_the_options_mean_what_they_mean_to_transformers(llama):
    """A text that ends early is filled with padding, and one that may not is not ended."""
    free = under_transformers(llama, PROMPT, None, max_new_tokens=10, eos_token_id=None)
    end = int(free[0, 8])
    for options in (
        {"eos_token_id": end},
        {"eos_token_id": end, "min_new_tokens": 6},
        {"repetition_penalty": 1.7, "eos_token_id": [end, 3]},
    ):
        ids = torch.cat([PROMPT, PROMPT.flip(1)])
        options |= {"max_new_tokens": 10}
        out = under_transformers(llama, ids, None, **options)
        assert torch.equal(out, llama.original_model.generate(ids, **options))


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("rows", [[0, 1], [1]], ids=["a batch", "one prompt"])
def test_a_penalty_of_repetitions_sees_no_padding(llama, rows, copies):
    """transformers makes one that leaves each row's padding out, and here rows have none."""
    options = {"max_new_tokens": 10, "num_return_sequences": copies, "do_sample": copies > 1}
    out = under_transformers(
        llama, PROMPTS[rows], attention_mask=MASK[rows], repetition_penalty=1.7, top_k=0, **options
    )
    each = [row for row in rows for _ in range(copies)]
    expected = li.generate(
        llama,
        PROMPTS[each],
        PATCH,
        attention_mask=MASK[each],
        max_new_tokens=10,
        do_sample=copies > 1,
        logits_processor=[RepetitionPenaltyLogitsProcessor(1.7)],
    ).tokens
    assert torch.equal(out[:, 6:], expected.masked_fill(expected < 0, 2))


def test_one_that_leaves_out_other_places_of_each_row_is_refused(llama):
    try:
        penalty = RepetitionPenaltyLogitsProcessor(1.7, prompt_ignore_length=torch.tensor([1, 2]))
    except ValueError:
        pytest.skip("this transformers takes one prompt_ignore_length for all rows")
    said = "a prompt_ignore_length of each row"
    with pytest.raises(NotImplementedError, match=f"{said}.*leave it out"):
        under_transformers(
            llama, PROMPTS, attention_mask=MASK, max_new_tokens=4, logits_processor=[penalty]
        )
    options = {"attention_mask": MASK, "max_new_tokens": 4}
    with pytest.raises(NotImplementedError, match=f"{said} needs all rows of a batch at once"):
        li.generate(llama, PROMPTS, PATCH, logits_processor=[penalty], **options)


def test_the_result_may_be_a_dictionary(llama):
    out = under_transformers(llama, PROMPT, max_new_tokens=3, return_dict_in_generate=True)
    assert torch.equal(out.sequences, under_transformers(llama, PROMPT, max_new_tokens=3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "beam search"),
        ({"return_dict_in_generate": True, "output_scores": True}, "output_scores=True"),
        ({"prefix_allowed_tokens_fn": lambda _row, _ids: [5, 6]}, "prefix_allowed_tokens_fn"),
        ({"guidance_scale": 2.0}, "guidance_scale"),
        ({"position_ids": torch.arange(6)[None] + 1}, "position_ids of your own"),
        (
            {"attention_mask": MASK[1:], "min_new_tokens": 2},
            "min_new_tokens with prompts of differ",
        ),
        ({"attention_mask": MASK[1:], "min_length": 8}, "min_length with prompts of different"),
        (
            {"attention_mask": MASK[1:], "forced_bos_token_id": 0},
            "forced_bos_token_id with prompts of different",
        ),
        ({"inputs_embeds": torch.ones(1, 6, 32, dtype=torch.float64)}, "inputs_embeds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_cannot_be_honoured_is_refused(llama, options, said):
    with pytest.raises(NotImplementedError, match=f"cannot be written under {said}.*leave it out"):
        under_transformers(llama, PROMPT, max_new_tokens=4, **options)


def test_embeddings_alone_are_refused(llama):
    given = {"inputs_embeds": torch.ones(1, 6, 32, dtype=torch.float64)}
    function = li.as_custom_generate(llama, PATCH)
    with pytest.raises(NotImplementedError, match=r"under inputs_embeds: leave it out"):
        llama.original_model.generate(custom_generate=function, max_new_tokens=4, **given)


def test_a_filled_cache_is_refused(llama):
    filled = DynamicCache()
    cache = as_argument(llama, filled)
    llama.original_model(PROMPT[:, :3], **cache)
    with pytest.raises(NotImplementedError, match="that is filled already"):
        under_transformers(llama, PROMPT, max_new_tokens=4, **cache)


def test_another_model_is_refused(llama):
    function = li.as_custom_generate(llama, PATCH)
    with pytest.raises(ValueError, match=r"made for tiny-llama.*original_model\.generate of that"):
        shared_bridge("gpt2").original_model.generate(
            PROMPT, custom_generate=function, max_new_tokens=2
        )


def test_rows_of_different_length_need_a_token_to_fill_them(llama):
    options = {
        "attention_mask": MASK,
        "max_new_tokens": 6,
        "eos_token_id": None,
        "pad_token_id": None,
        "stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(8)]),
    }
    with pytest.raises(ValueError, match="pass pad_token_id"):
        under_transformers(llama, PROMPTS, **options)
    out = under_transformers(llama, PROMPTS, **options | {"pad_token_id": 0})
    assert out.shape == (2, 11)
    assert out[0, 8:].tolist() == [0, 0, 0]
