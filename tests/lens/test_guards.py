"""What the lens refuses, and how it names what is wrong."""

import functools

import pytest
import torch

from lens_interventions.intervention.patch import NextTokenPatch
from lens_interventions.intervention.sources import BackPatch
from lens_interventions.intervention.teacher_forcing.log_probs import (
    teacher_forced_log_probs,
    teacher_forced_logits,
)
from lens_interventions.lens.components import component_logits
from lens_interventions.lens.lens_over import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model.tokens import token_batch
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge
from tests.support.user_hooks import LASTING, push_first

TOKENS = torch.arange(5, 29).view(2, 12) * 7 % 97 + 4


def test_a_lens_that_gives_no_numbers_is_named():
    def broken(residual, layer):
        return residual * (torch.nan if layer == 1 else 1)

    with pytest.raises(ValueError, match="what the lens makes of finite residuals at 1_pre"):
        logit_lens(shared_bridge("llama"), TOKENS, lens=broken)


@pytest.mark.parametrize(
    ("lens", "returned"),
    [
        (lambda residual, _layer: residual[..., :5], r"\(\d+, 5\) at 0_pre"),
        (lambda *_: None, "NoneType at 0_pre"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_a_lens_that_returns_another_shape_is_named(lens, returned):
    with pytest.raises(ValueError, match=rf"the lens returned {returned} for a residual of shape"):
        logit_lens(shared_bridge("llama"), TOKENS, lens=lens)


@pytest.mark.usefixtures("as_users_run")
def test_a_plain_dict_of_activations_is_named_in_a_line():
    bridge = shared_bridge("llama")
    _, activations = bridge.run_with_cache(TOKENS, return_cache_object=False)
    with pytest.raises(TypeError, match=r"got a dict of \d+ activations: wrap it") as caught:
        logit_lens(bridge, activations)
    assert len(str(caught.value)) < 300
    with pytest.raises(TypeError, match="token ids or an id tensor; got dict") as caught:
        teacher_forced_log_probs(bridge, activations, None)
    assert len(str(caught.value)) < 300


def test_a_prompt_that_is_not_there_is_named():
    read = logit_lens(shared_bridge("llama"), TOKENS, points=["1_pre"])
    with pytest.raises(ValueError, match=r"prompt 99 does not exist: there are 2 prompts"):
        read.prompt(99)


def test_one_point_is_asked_for_in_a_list():
    with pytest.raises(TypeError, match=r"for one point: \['1_pre'\]"):
        logit_lens(shared_bridge("llama"), TOKENS, points="1_pre")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 12}, "do not exist in prompt 0 of 12 tokens"),
        ({"positions": (5, 5)}, "leave nothing of prompt 0"),
        ({"points": [9]}, "residual point 9 does not exist"),
        ({"compare_with": "7_pre"}, "unknown residual point '7_pre'"),
        ({"divergences": ("js",)}, "must be a list with 'kl'"),
        ({"top_k": 0}, "top_k must be between 1 and"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"next_token": [3, 4, 5]}, "names 3 tokens for 2 texts"),
        ({"watch": "quick brown"}, "not one token"),
        ({"tokens": TOKENS}, "goes with an ActivationCache"),
    ],
)
def test_bad_options_are_named(options, message):
    bridge = shared_bridge("llama")
    with left_as_found(bridge), pytest.raises(ValueError, match=message):
        logit_lens(bridge, TOKENS, **options)


def test_activations_that_are_not_finite_are_located():
    bridge = shared_bridge("llama")

    def poison(tensor, hook):
        tensor = tensor.clone()
        tensor[1, 4] = torch.nan
        return tensor

    with (
        left_as_found(bridge),
        bridge.hooks(fwd_hooks=[("blocks.2.hook_resid_pre", poison)]),
        pytest.raises(ValueError, match="first at 2_pre, prompt 1, column 4"),
    ):
        logit_lens(bridge, TOKENS)


def test_a_token_without_a_number_in_the_unembedding_is_named():
    bridge = tiny_bridge("gptj")
    bridge.b_U.data[7] = torch.nan
    with pytest.raises(
        ValueError,
        match="of a finite residual are not a number, first at 0_pre, prompt 0, column 0: "
        "the unembedding is not finite for token 7",
    ):
        logit_lens(bridge, TOKENS)


def test_logits_that_overflow_half_precision_are_located():
    bridge = tiny_bridge("llama", dtype=torch.float16)

    logit_lens(bridge, TOKENS)  # while the model is as it was, its readout is found to be right
    bridge.unembed.weight.data.fill_(60000)
    with pytest.raises(ValueError, match="prompt 0, column 0: they overflow float16"):
        logit_lens(bridge, TOKENS)


def test_the_text_whose_logits_are_not_numbers_is_named():
    bridge = tiny_bridge("gptj")
    bridge.b_U.data[7] = torch.nan
    with pytest.raises(ValueError, match="text 0: the logits of a finite residual"):
        lens_over(bridge, [TOKENS[0]], progress=False)


@pytest.mark.parametrize("arch", ["t5", "mamba"])
def test_models_without_a_lens_are_refused(arch):
    bridge = tiny_bridge(arch)
    with left_as_found(bridge), pytest.raises(NotImplementedError):
        logit_lens(bridge, TOKENS)


def test_a_readout_that_is_not_the_models_is_refused():
    bridge = tiny_bridge("opt", word_embed_proj_dim=16)  # projects out of the residual stream
    with pytest.raises(ValueError, match="project_out"):
        logit_lens(bridge, TOKENS)


@pytest.mark.usefixtures("as_users_run")
def test_the_output_of_a_tokenizer_is_taken_apart():
    bridge = shared_bridge("llama")
    encoded = bridge.tokenizer("the fox", return_tensors="pt")
    for read in (logit_lens, token_batch):
        with pytest.raises(TypeError, match=r'got a BatchEncoding .* pass enc\["input_ids"\], att'):
            read(bridge, encoded)
    logit_lens(bridge, encoded["input_ids"], attention_mask=encoded["attention_mask"])


def test_training_mode_is_refused():
    bridge = tiny_bridge("llama")
    bridge.train()
    with pytest.raises(ValueError, match="eval"):
        logit_lens(bridge, TOKENS)


def back_patch_hooks(bridge, tokens, **options):
    return NextTokenPatch(layer=2, strength=0.4, source=BackPatch(3)).fwd_hooks(
        bridge, tokens, **options
    )


@pytest.mark.parametrize(
    "read",
    [
        logit_lens,
        component_logits,
        functools.partial(teacher_forced_log_probs, patch=None),
        functools.partial(teacher_forced_logits, patch=None),
        back_patch_hooks,
    ],
)
def test_left_padding_under_hooks_is_refused(read):
    bridge = shared_bridge("llama")
    mask = torch.ones_like(TOKENS)
    mask[1, :4] = 0
    hooks = [("blocks.0.hook_mlp_out", lambda tensor, hook: tensor)]
    read(bridge, TOKENS, attention_mask=mask)
    with bridge.hooks(fwd_hooks=hooks):
        read(bridge, TOKENS, attention_mask=mask.flip(1))
        with pytest.raises(ValueError, match="pad on the right"):
            read(bridge, TOKENS, attention_mask=mask)
    for put_on in LASTING:
        with put_on(bridge, 1, push_first), pytest.raises(ValueError, match="pad on the right"):
            read(bridge, TOKENS, attention_mask=mask)
