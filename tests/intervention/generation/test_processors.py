"""The processors of scores by the names of their numbers."""

import pytest
import torch
import transformers

from lens_interventions.intervention.generation.processors import (
    PROCESSORS,
    processors,
    sampling,
)

NUMBERS = {"min_p": 0.1, "top_k": 5, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.2}


def test_they_come_in_the_order_of_transformers():
    """The rows of scores are those of the list that `model.generate` makes of the same numbers."""
    config = transformers.GenerationConfig(do_sample=True, **NUMBERS)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_head=1, n_embd=4))
    theirs = model._get_logits_processor(config, input_ids_seq_length=3)
    assert [type(each) for each in processors(NUMBERS)] == [type(each) for each in theirs]
    tokens, scores = torch.tensor([[3, 5, 3]]), torch.linspace(-2, 3, 40)[None].sin()
    ours = transformers.LogitsProcessorList(processors(NUMBERS))
    assert torch.equal(ours(tokens, scores.clone()), theirs(tokens, scores.clone()))


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_plain_number_of_each_makes_none(name):
    kind, plain = PROCESSORS[name]
    assert processors({name: plain}) == []
    (made,) = processors({name: NUMBERS[name]})
    assert type(made) is kind


def test_options_of_generate():
    (penalty,) = sampling(0, {"repetition_penalty": 1.2, "top_p": 1})["logits_processor"]
    assert penalty.penalty == 1.2
    options = sampling(0.5, {"top_p": 0.9, "top_k": 3})
    assert (options["do_sample"], options["temperature"]) == (True, 0.5)
    assert [type(each).__name__ for each in options["logits_processor"]] == [
        "TopKLogitsWarper",
        "TopPLogitsWarper",
    ]
    with pytest.raises(ValueError, match="top_k and top_p would change nothing at temperature 0"):
        sampling(0, {"top_p": 0.9, "top_k": 3, "repetition_penalty": 2})
    with pytest.raises(ValueError, match="top_p"):
        sampling(1, {"top_p": 2})
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"temperature must be 0, .* or above; got {wrong}"):
            sampling(wrong, {})
