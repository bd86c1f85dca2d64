"""Arguments that have another name elsewhere."""

import inspect

import pytest
import torch

import lens_interventions as li
from tests.support.tiny import shared_bridge

TOKENS = torch.arange(4, 9)[None]


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: li.logit_lens(b, TOKENS, layers=[1]), "no argument 'layers': write points="),
        (lambda b: li.generate(b, TOKENS, max_new_tokens=2, top_p=0.9), "TopPLogitsWarper"),
        (lambda b: li.generate(b, TOKENS, max_length=9), "write max_new_tokens="),
        (
            lambda b: li.generate(b, TOKENS, max_new_tokens=2, num_return_sequences=3),
            r"prompts=\[prompt\] \* n",
        ),
        (lambda b: li.generate(b, TOKENS, max_new_tokens=2, nonsense=1), "nonsense"),
    ],
)
def test_the_name_here_is_told(call, message):
    with pytest.raises(TypeError, match=message):
        call(shared_bridge("llama"))


def test_the_signature_stays_as_it_is():
    assert "points" in inspect.signature(li.logit_lens).parameters
    assert "layers" not in inspect.signature(li.logit_lens).parameters
