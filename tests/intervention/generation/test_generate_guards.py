"""Generation leaves the bridge as it was and names what it cannot do."""

import contextlib
from dataclasses import replace

import pytest
import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    LogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    TemperatureLogitsWarper,
)

import lens_interventions as li
from tests.support.architectures import N_CTX
from tests.support.clean import hook_refused, left_as_found
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge

PROMPTS = [[5, 17, 4, 44, 17, 60, 9], [33, 8]]
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
OPTIONS = {"max_new_tokens": 5, "stop_at_eos": False}


class Failing(LogitsProcessor):
    def __init__(self, error, at):
        self.error, self.at, self.calls = error, at, 0

    def __call__(self, _input_ids, scores):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return scores


class Prefixed(PrefixConstrainedLogitsProcessor):
    """As transformers' own, which counts the rows of a batch."""


def test_a_processor_that_needs_the_whole_batch_is_refused():
    for kind in (PrefixConstrainedLogitsProcessor, Prefixed):
        unfit = [kind(lambda row, _ids: [5 + row], num_beams=1)]
        with pytest.raises(NotImplementedError, match="prefix_allowed_tokens_fn needs all rows"):
            li.generate(shared_bridge("llama"), PROMPTS, logits_processor=unfit, **OPTIONS)
    for kind in (EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor):
        size = 2 if kind is EncoderNoRepeatNGramLogitsProcessor else 1.2
        unfit = [kind(size, torch.tensor([[5, 6], [7, 8]]))]
        with pytest.raises(NotImplementedError, match=r"encoder_\w+ needs all rows"):
            li.generate(shared_bridge("llama"), PROMPTS, logits_processor=unfit, **OPTIONS)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bridge_is_as_it_was_after_an_exception(error, dtype):
    bridge = shared_bridge("llama", dtype)
    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, PATCH, logits_processor=[Failing(error, 5)], **OPTIONS)

    def failing_source(site):
        if site.text.length.max() > 9:
            raise error
        return site.next_tokens

    patch = li.NextTokenPatch(layer=(1, 2), strength=0.1, source=failing_source)
    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, patch, **OPTIONS)

    tokens = []

    def failing_callback(step):
        tokens.append(step.tokens)
        if step.step == 3:
            raise error

    with left_as_found(bridge), pytest.raises(type(error)):
        li.generate(bridge, PROMPTS, PATCH, callback=failing_callback, **OPTIONS)
    whole = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)
    assert torch.equal(torch.stack(tokens, dim=1), whole.tokens[:, :4])


@pytest.mark.usefixtures("always_faster")
def test_a_callback_of_a_long_text_may_differentiate_and_sees_edited_weights():
    """Decoding multiplies by copies of the weights, which take no gradient, and not there."""
    bridge, seen = tiny_bridge("llama", dtype=torch.float32), []
    tokens = torch.tensor([[5, 6, 7, 8]])

    def use(step):
        with torch.enable_grad():
            embedded = torch.zeros(1, 4, bridge.cfg.d_model, requires_grad=True)
            hooks = [("blocks.0.hook_resid_pre", lambda resid, hook: resid + embedded)]
            with bridge.hooks(fwd_hooks=hooks):
                (gradient,) = torch.autograd.grad(bridge(tokens).square().sum(), embedded)
        seen.append(bool(gradient.abs().sum() > 0))
        if step.step == 0:
            with torch.no_grad():
                bridge.blocks[0].mlp.out.weight.zero_()
        assert (bridge.blocks[0].mlp(torch.ones(1, 1, bridge.cfg.d_model)) == 0).all()

    li.generate(bridge, PROMPTS, max_new_tokens=16, stop_at_eos=False, callback=use)
    assert seen == [True] * 16


def test_bridge_can_be_used_within_a_callback():
    bridge = shared_bridge("mistral", torch.float32)
    tokens = torch.tensor(PROMPTS[:1])
    expected = bridge(tokens)
    seen = []

    def use(step):
        _, cache = bridge.run_with_cache(tokens)
        seen.append(cache["blocks.2.attn.hook_pattern"].shape)
        torch.testing.assert_close(bridge(tokens), expected, rtol=0, atol=0)
        li.generate(bridge, tokens, None, max_new_tokens=2)

    out = li.generate(bridge, PROMPTS, PATCH, callback=use, **OPTIONS)
    assert torch.equal(out.tokens, li.generate(bridge, PROMPTS, PATCH, **OPTIONS).tokens)
    assert len(seen) == 5


def test_what_a_callback_writes_into_its_step_stays_there():
    bridge = shared_bridge("llama")
    expected = li.generate(bridge, PROMPTS, PATCH, **OPTIONS)

    def write(step):
        for tensor in (step.rows, step.tokens, step.log_probs):
            tensor.fill_(1)

    out = li.generate(bridge, PROMPTS, PATCH, callback=write, **OPTIONS)
    assert torch.equal(out.tokens, expected.tokens)
    assert torch.equal(out.log_probs, expected.log_probs)
    assert out.texts == expected.texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "at least 1"),
        ({"chunk_size": 0}, "at least 1"),
        ({"max_new_tokens": N_CTX - 6}, f"ask for {N_CTX - 7} at most"),
        ({"patch": []}, "list of patches is empty"),
        ({"patch": li.NextTokenPatch(layer=3, strength=0.1)}, "blocks 0 to 2"),
        ({"temperature": 0.5}, "do_sample=True"),
        ({"temperature": 0.0, "do_sample": True}, "above 0"),
        ({"seed": [1]}, "1 seed for 2 prompts"),
        ({"prompt_length": torch.tensor([3])}, r"prompt_length has shape \(1,\); give one number"),
        ({"prompt_length": 3}, r"prompt_length must be from 0 to .*\[7, 2\], got \[3, 3\]"),
        ({"prompts": [[D_VOCAB]]}, "token ids must be in"),
        ({"prompts": [""], "prepend_bos": False}, "empty"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_named(arguments, message):
    bridge = shared_bridge("llama")
    options = {"prompts": PROMPTS, "patch": PATCH, "max_new_tokens": 2} | arguments
    with left_as_found(bridge), pytest.raises(ValueError, match=message):
        li.generate(bridge, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"watch": "nope"}, ValueError, "'nope' is not one token"),
        ({"foo": 1}, TypeError, "foo"),
        ({"layers": [1]}, TypeError, "write points="),
        ({"next_token": 5}, ValueError, "trajectory has next_token="),
        ({"prepend_bos": True, "attention_mask": 1}, ValueError, "attention_mask=, prepend_bos="),
        (None, TypeError, "trajectory must be True, False or a mapping .* got None"),
        ({"points": ["9_pre"]}, ValueError, "9_pre"),
        ({"incl_mid": True}, ValueError, "was not recorded"),
        ({"compare_with": "first"}, ValueError, "first"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"divergences": "js"}, ValueError, "divergences"),
        ({"tokens": torch.tensor([[5]])}, ValueError, "trajectory has tokens="),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.usefixtures("as_users_run")
def test_a_wrong_option_of_a_trajectory_is_named_before_anything_is_decoded(
    options, error, message
):
    taken = []
    with pytest.raises(error, match=message):
        li.generate(
            shared_bridge("llama"),
            PROMPTS,
            PATCH,
            trajectory=options,
            callback=taken.append,
            **OPTIONS,
        )
    assert not taken


def test_trying_the_options_of_a_trajectory_shows_no_progress():
    bridge, shares, taken = shared_bridge("llama"), [], []

    def progress(share):
        assert len(taken) == 5
        shares.append(share)

    trajectory = {"progress": progress, "positions": slice(3, 5)}
    out = li.generate(bridge, PROMPTS, trajectory=trajectory, callback=taken.append, **OPTIONS)
    assert shares[-1] == 1
    assert out.trajectory.mask.shape == (2, 2)


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize("part", ["", "transformer.h.1.mlp.dropout"])
def test_training_mode_is_refused(used_before, part):
    bridge, text = tiny_bridge("gpt2"), torch.arange(4, 12)[None]
    if used_before:
        li.logit_lens(bridge, text)
    bridge.original_model.get_submodule(part).train()
    for run in (
        lambda: li.generate(bridge, PROMPTS, max_new_tokens=1),
        lambda: li.teacher_forced_log_probs(bridge, text, None),
        lambda: li.teacher_forced_logits(bridge, text, PATCH),
        lambda: li.effect_map(bridge, text, lambda logits: logits.mean(), patch=PATCH),
    ):
        with pytest.raises(ValueError, match=r"training mode.*bridge\.eval\(\)"):
            run()


@pytest.mark.usefixtures("as_users_run")
def test_one_processor_is_to_be_put_in_a_list():
    with pytest.raises(TypeError, match="is one TemperatureLogitsWarper: put it in a list"):
        li.generate(
            shared_bridge("llama"),
            PROMPTS,
            do_sample=True,
            logits_processor=TemperatureLogitsWarper(2.0),
            **OPTIONS,
        )


@pytest.mark.parametrize(
    ("process", "made"),
    [
        (lambda _ids, scores: scores[:, :5], r"shape \(1, 5\)"),
        (lambda _ids, _scores: None, "None"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_a_processor_that_does_not_return_scores_is_named(process, made):
    processors = [process, TemperatureLogitsWarper(0.5)]
    message = rf"scores of shape \(1, 112\); function returned {made}"
    with pytest.raises(ValueError, match=message):
        li.generate(shared_bridge("llama"), PROMPTS, logits_processor=processors, **OPTIONS)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "got None"),
        (torch.zeros(2, dtype=torch.bool), r"got torch.bool of shape \(2,\)"),
        (torch.zeros(1), r"got torch.float\d\d of shape \(1,\)"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_a_criterion_that_does_not_judge_each_text_is_named(found, said):
    bridge, criterion = shared_bridge("llama"), lambda _ids, _scores: found
    with pytest.raises(ValueError, match=f"one for each of the 1 rows of input_ids.*{said}"):
        li.generate(bridge, PROMPTS, stopping_criteria=[criterion], **OPTIONS)


@pytest.mark.usefixtures("as_users_run")
def test_a_criterion_may_judge_all_texts_at_once():
    bridge = shared_bridge("llama")
    found = li.generate(
        bridge, PROMPTS, stopping_criteria=[lambda ids, _scores: ids.shape[1] > 7], **OPTIONS
    )
    assert (found.prompt_lengths + found.lengths).tolist() == [8, 7]


def test_a_patch_beyond_the_last_token_is_told():
    bridge, longest = shared_bridge("llama"), len(PROMPTS[0])
    # The last of 5 new tokens is predicted at the place of the fourth, by those before it.
    last = longest + OPTIONS["max_new_tokens"] - 3
    plain = li.generate(bridge, PROMPTS, **OPTIONS)
    for position, reached in ((last, True), (last + 1, False)):
        patch = replace(PATCH, positions=[position], strength=1.0)
        told = pytest.warns(UserWarning, match=rf"at positions \[{position}\] changes nothing")
        with contextlib.nullcontext() if reached else told:
            found = li.generate(bridge, PROMPTS, patch, **OPTIONS)
        assert torch.equal(found.log_probs, plain.log_probs) is not reached


def test_processors_may_come_from_a_generator():
    bridge = shared_bridge("llama")
    warm = (TemperatureLogitsWarper(t) for t in (0.5,))
    found = li.generate(bridge, PROMPTS, do_sample=True, logits_processor=warm, **OPTIONS)
    expected = li.generate(bridge, PROMPTS, do_sample=True, temperature=0.5, **OPTIONS)
    assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize("name", ["ln_final.hook_normalized", "unembed.hook_out"])
@pytest.mark.parametrize(
    "options",
    [
        {"patch": replace(PATCH, mode="correct")},
        {"patch": [None, replace(PATCH, gate=2.0)]},
        {"patch": replace(PATCH, gate=2.0, gate_on="output")},
        {"logits_processor": [li.DoLa()]},
        {"logits_processor": [li.SLED()]},
        {"trajectory": True},
    ],
)
def test_a_hook_that_a_reading_of_earlier_layers_would_pass_by_is_refused(name, options):
    bridge = shared_bridge("llama")
    with hook_refused(bridge, name):
        li.generate(bridge, PROMPTS, **options, **OPTIONS)


@pytest.mark.parametrize("do_sample", [False, True])
def test_values_that_are_not_numbers_are_named(do_sample):
    bridge = shared_bridge("llama")
    patch = li.NextTokenPatch(layer=1, strength=1.0, source=lambda site: site.resid * torch.nan)
    message = "logits for new token 0 of row 0 are not a number: look for a hook or patch"
    with pytest.raises(ValueError, match=message):
        li.generate(bridge, PROMPTS, patch, do_sample=do_sample, **OPTIONS)


@pytest.mark.parametrize("do_sample", [False, True])
@pytest.mark.parametrize("left", [[-torch.inf, -torch.inf], [1.0, torch.nan]])
def test_processors_that_leave_nothing_to_choose_are_named(do_sample, left):
    class Leaves(LogitsProcessor):
        def __call__(self, _input_ids, scores):
            return torch.full_like(scores, left[0]).index_fill(-1, torch.tensor([7]), left[1])

    with pytest.raises(ValueError, match="without any token to choose"):
        li.generate(
            shared_bridge("llama"),
            PROMPTS,
            do_sample=do_sample,
            logits_processor=[TemperatureLogitsWarper(2.0), Leaves()],
            **OPTIONS,
        )


def test_hooks_of_a_patch_are_refused():
    """They were made for other tokens than those that are written."""
    bridge = shared_bridge("llama")
    hooks = PATCH.fwd_hooks(bridge, torch.arange(4, 12)[None])
    with (
        bridge.hooks(fwd_hooks=hooks),
        pytest.raises(ValueError, match=r"hooks of a patch are on the bridge.*patch="),
    ):
        li.generate(bridge, PROMPTS, max_new_tokens=1)
