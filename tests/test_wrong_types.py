"""An argument of another type is named, with what was expected, where users run the library."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import MaxLengthCriteria

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_model

pytestmark = pytest.mark.usefixtures("as_users_run")

BRIDGE = shared_bridge("llama")
TOKENS = [[5, 17, 4, 44]]
READ = li.logit_lens(BRIDGE, TOKENS)
SPARSE = li.NextTokenPatch(layer=1, strength=0.5, mode=lambda *_: None)
PATCH = li.NextTokenPatch(layer=1, strength=0.5)
LENS = li.AffineLens(torch.zeros(2, 32, 32), torch.zeros(2, 32), "any weights", {})
UNREAD = iter(())  # reading it would say that there is no text
EMPTY = li.NextTokenPatch(layer=1, strength=0.5, source=lambda _: None)


def generate(**options):
    return li.generate(BRIDGE, TOKENS, **{"max_new_tokens": 2} | options)


def effect_map(**options):
    return li.effect_map(BRIDGE, TOKENS, lambda logits: logits.mean(), **{"patch": PATCH} | options)


def contrasted(**options):
    return generate(logits_processor=[li.DoLa(**options)])


def teacher_forced(patch=None, **options):
    return li.teacher_forced_log_probs(BRIDGE, TOKENS, patch, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: generate(max_new_tokens=2.5), TypeError, "max_new_tokens must be a whole number"),
        (
            lambda: li.train_patch(
                BRIDGE, ["the fox"], layer=1, options={"window": 12}, progress=False
            ),
            TypeError,
            r"options must be of the class TrainingOptions, got dict \{'window': 12\}",
        ),
        (
            lambda: li.search_sequence(BRIDGE, TOKENS, n_tokens=2, options={"restarts": 1}),
            TypeError,
            "options must be of the class SearchOptions, got dict",
        ),
        (
            lambda: li.refine_affine_lens(BRIDGE, lambda r, _: r, ["the fox"], progress=False),
            TypeError,
            "lens must be of the class AffineLens, got function",
        ),
        (
            lambda: li.input_recovery(BRIDGE, "probe", ["the fox"], progress=False),
            TypeError,
            "probe must be of the class InputProbe, got str 'probe'",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS)["2_pre"],
            TypeError,
            r"a trajectory is indexed by one position or a slice of them, got '2_pre'.*points=",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS)[[1, 2]],
            TypeError,
            r"a trajectory is indexed by one position .*, got \[1, 2\].*positions=",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, apply_ln=True),
            TypeError,
            "logit_lens has no argument 'apply_ln': write norm='full' or 'pre_affine'",
        ),
        (
            lambda: li.plots.plot_position([li.logit_lens(BRIDGE, TOKENS)], 0),
            TypeError,
            "plot_position takes one trajectory, got a list",
        ),
        (
            lambda: li.effect_map(BRIDGE, TOKENS, None, patch=PATCH),
            TypeError,
            "metric is a function of logits that returns a number, got None",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS).commitment(top=1.5),
            TypeError,
            "top must be a whole number, got 1.5",
        ),
        (
            lambda: li.lens_over(BRIDGE, ["the fox"], max_tokens=3.5, progress=False),
            TypeError,
            "max_tokens must be a whole number, got 3.5",
        ),
        (
            lambda: li.slope_map(
                BRIDGE, ["the fox"], sources=(name for name in ["true"]), progress=False
            ),
            ValueError,
            "sources must be a list",
        ),
        (
            lambda: li.slope_map(BRIDGE, ["the fox"], first_position="a", progress=False),
            ValueError,
            "first_position must be from 0 to .* got 'a'",
        ),
        (
            lambda: li.ablate_directions(1, torch.ones(1, 32), mean=[0.0] * 32),
            TypeError,
            r"mean must be a tensor, got list \[0.0",
        ),
        (
            lambda: READ.plot(batch="a"),
            TypeError,
            "batch must be a whole number, got 'a'",
        ),
        (lambda: READ.leaders("a"), TypeError, "position must be a whole number, got 'a'"),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, positions=True),
            TypeError,
            "positions must be a whole number, .* got True",
        ),
        (lambda: READ[True], TypeError, "indexed by one position or a slice of them, got True"),
        (lambda: generate(patch=3), TypeError, "patch must be a NextTokenPatch, .* got int 3"),
        (
            lambda: li.rescue(BRIDGE, ["the fox"], [PATCH], progress=False),
            TypeError,
            "patch must be one NextTokenPatch, got list",
        ),
        (
            lambda: li.head_slopes(BRIDGE, ["the fox"], None, progress=False),
            TypeError,
            "patch must be one NextTokenPatch, got NoneType",
        ),
        (
            lambda: li.effect_map(BRIDGE, TOKENS, lambda _: {"loss": 1.0}, patch=PATCH),
            TypeError,
            r"the metric returned \{'loss': 1.0\}; it should turn logits into one number",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, watch=[[5], [6]]),
            TypeError,
            r"a token is a string or an id, got \[5\]: give one list, of tokens for all texts",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, watch=5.5),
            TypeError,
            "a token is a string or an id, got 5.5",
        ),
        (
            lambda: li.lens_over(BRIDGE, [{"text": "the fox"}], progress=False),
            TypeError,
            r"text 0: expected a text.*got dict",
        ),
        (
            lambda: li.patch_loss(BRIDGE, Path("texts.txt"), PATCH, progress=False),
            TypeError,
            r"expected an iterable of texts, got a PosixPath: give a list, .*path\.read_text",
        ),
        (
            lambda: li.load_model(5),
            TypeError,
            "the name of a model is text, got a int",
        ),
        (
            lambda: li.load_model(hf_model="gpt2"),
            TypeError,
            "hf_model must be of the class Module, got str 'gpt2'",
        ),
        (
            lambda: li.load_model(hf_model=BRIDGE.original_model, tokenizer="gpt2"),
            TypeError,
            "tokenizer is a tokenizer and not its name, got 'gpt2'",
        ),
        (
            lambda: generate(patch=[None, PATCH]).of_patch(2),
            IndexError,
            "the patches are numbered from 0 to 1; got 2",
        ),
        (
            lambda: li.logit_lens(BRIDGE, pd.Series(["the fox", "the dog"])),
            TypeError,
            r"(?s)got Series .*: pass list\(texts\)",
        ),
        (
            lambda: li.logit_lens(BRIDGE, pd.Series([4, 5])),
            TypeError,
            r"(?s)got Series .*: make it a tensor by torch\.as_tensor",
        ),
        (
            lambda: li.lens_over(BRIDGE, ["the fox"], progress=False, foo=3),
            TypeError,
            "lens_over takes the options of logit_lens, which has none called foo",
        ),
        (
            lambda: effect_map(positions=[0.5]),
            TypeError,
            r"positions must be whole numbers, got \[0.5\]",
        ),
        (
            lambda: effect_map(positions="every"),
            TypeError,
            "positions must be a list of numbers or 'all', got 'every'",
        ),
        (lambda: generate(patch=[None, "x"]), TypeError, "patch must be .* got str"),
        (
            lambda: generate(stopping_criteria=MaxLengthCriteria(12)),
            TypeError,
            "stopping_criteria is one MaxLengthCriteria: put it in a list",
        ),
        (
            lambda: generate(stopping_criteria=len),
            TypeError,
            "stopping_criteria must be a list of StoppingCriteria objects, got <built-in function",
        ),
        (lambda: generate(logits_processor=len), TypeError, "must be a list of LogitsProcessor"),
        (
            lambda: generate(logits_processor=[3]),
            TypeError,
            "LogitsProcessor objects; 3 is not one",
        ),
        (lambda: generate(max_new_tokens=True), TypeError, "max_new_tokens must be a whole number"),
        (lambda: generate(patch="patch"), TypeError, "patch must be .* got str 'patch'"),
        (
            lambda: generate(temperature=math.nan, do_sample=True),
            ValueError,
            "above 0, got nan",
        ),
        (lambda: generate(seed=None), TypeError, "seed must be one integer, .* got None"),
        (lambda: generate(seed=1.5), TypeError, "seed must be one integer, .* got 1.5"),
        (
            lambda: effect_map(patch=[PATCH]),
            TypeError,
            "patch must be one NextTokenPatch, got list",
        ),
        (lambda: effect_map(patch=None), TypeError, "patch must be one NextTokenPatch, got None"),
        (
            lambda: effect_map(positions=-1),
            TypeError,
            "positions must be a list of numbers or 'all', got -1",
        ),
        *(
            (call, TypeError, r"layers must be a list of whole numbers, such as \[0, 2\]; got 1")
            for call in (
                lambda: effect_map(layers=1),
                lambda: li.slope_map(BRIDGE, TOKENS, layers=1, progress=False),
                lambda: li.linear_ceiling(BRIDGE, TOKENS, TOKENS, layers=1, progress=False),
                lambda: li.rescue(BRIDGE, TOKENS, PATCH, layers=1, progress=False),
                lambda: contrasted(layers=1),
            )
        ),
        (lambda: contrasted(layers=[0.5]), TypeError, "layers must be a list of whole numbers"),
        (lambda: li.logit_lens(BRIDGE, ["when", 3]), TypeError, "texts or ids, got both"),
        (lambda: li.logit_lens(BRIDGE, np.array(TOKENS)), TypeError, "make it a tensor by torch"),
        (lambda: li.logit_lens(BRIDGE, TOKENS, top_k=2.5), TypeError, "top_k must be a whole"),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, chunk_size="a"),
            TypeError,
            "chunk_size must be a whole number, got 'a'",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, compare_with=None),
            TypeError,
            "compare_with must be 'final', 'input', a label or an index of a point, got None",
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, divergences=3),
            ValueError,
            "divergences must be a list with 'kl', .* got 3",
        ),
        (
            lambda: li.unlikely_components(BRIDGE, TOKENS, below="a"),
            TypeError,
            "below must be a number, got 'a'",
        ),
        (
            lambda: li.unlikely_components(BRIDGE, TOKENS, directions=2.5),
            TypeError,
            "directions must be a whole number, got 2.5",
        ),
        (
            lambda: li.embedding_basis(BRIDGE, n_components=2.5),
            TypeError,
            "n_components must be a whole number, got 2.5",
        ),
        (
            lambda: li.TrainingOptions(window=None),
            TypeError,
            "window must be a whole number, got None",
        ),
        (
            lambda: li.train_patch(BRIDGE, TOKENS, layer=1, steps=None),
            TypeError,
            "steps must be a whole number, got None",
        ),
        (
            lambda: li.train_patch(BRIDGE, TOKENS, layer=1, source=["true"]),
            ValueError,
            r"source must be one of .*; got \['true'\]",
        ),
        (lambda: li.ResidualStore(gib="1"), TypeError, "gib must be a number, got str '1'"),
        (
            lambda: li.refine_affine_lens(BRIDGE, LENS, UNREAD, learning_rate="1"),
            TypeError,
            "learning_rate must be a number, got str '1'",
        ),
        (
            lambda: li.refine_affine_lens(BRIDGE, LENS, UNREAD, patience=None),
            TypeError,
            "patience must be a whole number, got None",
        ),
        (lambda: li.BackPatch("a"), TypeError, "layer must be a whole number, got 'a'"),
        (lambda: li.SLED(scale=2.5), TypeError, "scale must be a whole number, got 2.5"),
        *(
            (
                lambda number=number: li.sample_texts(BRIDGE, number),
                TypeError,
                f"n_texts must be a whole number, got {number}",
            )
            for number in (2.5, None)
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS).commitment(probability="half"),
            TypeError,
            "probability must be a number, got str 'half'",
        ),
        *(
            (
                lambda name=name: li.train_patch(BRIDGE, TOKENS, layer=1, **{name: 2.5}),
                TypeError,
                f"{name} must be a whole number, got 2.5",
            )
            for name in ("steps", "save_every", "rank")
        ),
        *(
            (
                lambda name=name: li.TrainingOptions(**{name: 2.5}),
                TypeError,
                f"{name} must be a whole number, got 2.5",
            )
            for name in (
                "batch_size",
                "evaluate_every",
                "held_out_windows",
                "patience",
                "window",
                "first_position",
            )
        ),
        (
            lambda: li.lens_over(BRIDGE, TOKENS, top_k=2, progress=False),
            ValueError,
            "^lens_over keeps no top tokens, so it takes no top_k",
        ),
        (lambda: generate(temperature="1"), TypeError, "temperature must be a number, got '1'"),
        (
            lambda: li.as_custom_generate(BRIDGE, [None, PATCH]),
            TypeError,
            r"patch must be one NextTokenPatch or None, got list .*: call it once for each patch",
        ),
        (lambda: teacher_forced(max_length=4.0), TypeError, "max_length must be a whole number"),
        (lambda: teacher_forced(overlap=0.0), TypeError, "overlap must be a whole number"),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS).plot(every=2.0),
            TypeError,
            "every must be a whole number, got 2.0",
        ),
        (lambda: LENS.inverse(2), ValueError, "the lens has layers 0 to 1, got 2"),
        (
            lambda: LENS.save("never.safetensors", dtype="float16"),
            TypeError,
            "dtype must be one of torch's, .* got 'float16'",
        ),
        (lambda: teacher_forced(overlap=1.5), TypeError, "overlap must be a whole number, got 1.5"),
        (
            lambda: teacher_forced(fwd_hooks=("blocks.1.hook_mlp_out", lambda out, hook: out)),
            TypeError,
            r"must be a list of pairs .*, but 'blocks.1.hook_mlp_out' is not a pair",
        ),
        (
            lambda: teacher_forced(fwd_hooks=None),
            TypeError,
            r"fwd_hooks must be a list of pairs .*, got None",
        ),
        (lambda: li.SearchOptions(restarts=2.5), TypeError, "restarts must be a whole number"),
        (
            lambda: li.SearchOptions(temperature="a"),
            TypeError,
            "temperature must be a number, got str 'a'",
        ),
        *(
            (
                lambda name=name: li.SearchOptions(**{name: math.inf}),
                ValueError,
                f"{name} must be a finite number, got inf",
            )
            for name in ("learning_rate", "entropy", "temperature", "noise", "start_score")
        ),
        *(
            (call, TypeError, "seed must be a whole number, got 1.5")
            for call in (
                lambda: li.search_sequence(BRIDGE, TOKENS, 2, seed=1.5),
                lambda: li.unlikely_components(BRIDGE, TOKENS, seed=1.5),
                lambda: li.embedding_basis(BRIDGE, seed=1.5),
                lambda: li.refine_affine_lens(BRIDGE, LENS, UNREAD, seed=1.5),
            )
        ),
        (
            lambda: li.refine_affine_lens(BRIDGE, LENS, UNREAD, learning_rate=math.inf),
            ValueError,
            "learning_rate must be a finite number above 0, got inf",
        ),
        (
            lambda: li.refine_affine_lens(BRIDGE, LENS, UNREAD, window=2.5),
            TypeError,
            "window must be a whole number, got 2.5",
        ),
        (
            lambda: li.lens_quality(BRIDGE, LENS, UNREAD, skip_first=1.5),
            TypeError,
            "skip_first must be a whole number, got 1.5",
        ),
        (
            lambda: li.linear_ceiling(BRIDGE, UNREAD, TOKENS, first_position=-1),
            ValueError,
            "first_position must be at least 0, got -1",
        ),
        (
            lambda: li.train_patch(BRIDGE, UNREAD, layer=1, store=3),
            TypeError,
            "store must be of the class ResidualStore, got int 3",
        ),
        (
            lambda: li.train_patch(BRIDGE, UNREAD, layer=1, base=PATCH),
            TypeError,
            "base must be of the class LearnedWrite, got NextTokenPatch",
        ),
        (lambda: generate(callback=3), TypeError, "callback must be a function of a Generation"),
        (lambda: teacher_forced(3), TypeError, "patch must be a NextTokenPatch"),
        (lambda: teacher_forced(where=[[True] * 3]), TypeError, r"where must be .* got list"),
        (lambda: teacher_forced(SPARSE), TypeError, "the mode '<lambda>' returned a NoneType"),
        (lambda: teacher_forced(EMPTY), TypeError, "the source '<lambda>' returned a NoneType"),
        (
            lambda: li.ablate_directions(1.0, torch.randn(1, 32)),
            TypeError,
            "layer must be a whole number, got 1.0",
        ),
        (
            lambda: li.ablate_directions(-1, torch.randn(1, 32)),
            ValueError,
            "layer must be at least 0, got -1",
        ),
        (
            lambda: li.NextTokenPatch(layer=1, strength=0.5, first_position=10**30),
            ValueError,
            r"first_position must be from 0 to 2\*\*63 - 1, got 1000",
        ),
        (
            lambda: li.curvature(BRIDGE, UNREAD, [PATCH], step="x", progress=False),
            TypeError,
            "step must be a number, got str 'x'",
        ),
        (
            lambda: li.fit_affine_lens(BRIDGE, UNREAD, holdout="a", progress=False),
            TypeError,
            "holdout must be a whole number, got 'a'",
        ),
        (
            lambda: li.fit_affine_lens(BRIDGE, UNREAD, window=1, skip_first=0, progress=False),
            ValueError,
            "window must be at least 2 tokens, got 1",
        ),
        (
            lambda: li.ablate_directions(1, [1, 2, 3]),
            TypeError,
            r"directions must be a tensor, got list \[1, 2, 3\]: make it one by torch.as_tensor",
        ),
        (
            lambda: li.ablate_directions(1, torch.randn(32)),
            ValueError,
            r"got shape \[32\]: for one direction give directions\[None\]",
        ),
        (
            lambda: BRIDGE.run_with_hooks(
                torch.tensor(TOKENS), fwd_hooks=li.ablate_directions(1, torch.randn(1, 31))
            ),
            ValueError,
            "directions are 31 wide and the model is 32",
        ),
        (
            lambda: li.ablate_directions(1, torch.full((1, 32), torch.nan)),
            ValueError,
            "directions must be finite",
        ),
        (lambda: generate(max_new_tokens=None), TypeError, "max_new_tokens must be a whole number"),
        (lambda: generate(seed="2"), TypeError, "seed must be one integer"),
        (
            lambda: teacher_forced(prompt_length=True),
            TypeError,
            "prompt_length must be whole numbers, got True",
        ),
        (
            lambda: li.logit_lens(BRIDGE, torch.tensor([[5 + 3j, 17]])),
            TypeError,
            "expected integer token ids .* torch.complex64",
        ),
        (
            lambda: li.logit_lens(
                BRIDGE, torch.tensor(TOKENS), attention_mask=torch.tensor([[torch.nan, 1, 1, 1]])
            ),
            ValueError,
            "attention_mask has nan",
        ),
        (
            lambda: li.slope_map(
                BRIDGE, TOKENS, layers=torch.tensor([False, False, True]), progress=False
            ),
            TypeError,
            r"layers must be a list of whole numbers, such as \[0, 2\]; got tensor\(\[False",
        ),
        (
            lambda: effect_map(positions=torch.tensor([False, False, True])),
            TypeError,
            r"positions must be whole numbers, got tensor\(\[False",
        ),
        *(
            (
                lambda positions=positions: li.logit_lens(BRIDGE, TOKENS, positions=positions),
                TypeError,
                "positions must be a whole number, a list of these, a mask, or a slice",
            )
            for positions in (
                *("all", 1.5, [1.7], np.array([1.7]), (1.0, 3.0), [[0], [1]], [None], {1}),
                *(b"1", 10**30, (1, 2, 1, 1), torch.tensor([[1]])),
            )
        ),
        (
            lambda: li.logit_lens(BRIDGE, TOKENS, positions=slice(None, None, -1)),
            ValueError,
            "positions are read forwards: the step must be at least 1, got -1",
        ),
        (lambda: li.load_model(tiny_model("llama")), TypeError, r"load_model\(hf_model=model"),
        (
            lambda: li.plots.save(li.logit_lens(BRIDGE, TOKENS), "b.html"),
            TypeError,
            r"got a Trajectory: pass what its plot\(\) returns",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_type_is_named(call, error, message):
    with left_as_found(BRIDGE), pytest.raises(error, match=message):
        call()


def test_lists_of_numbers_are_numbers():
    text = [1, 2] * 20
    half = li.NextTokenPatch(layer=1, strength=Fraction(1, 2), gate=Fraction(1, 4))
    assert half == li.NextTokenPatch(layer=1, strength=0.5, gate=0.25)
    assert li.behaviour.find_loops(text) == li.behaviour.find_loops(torch.tensor(text))
    assert li.behaviour.ending_loops([text]) == [li.behaviour.ending_loop(text)]
    assert li.behaviour.ending_loop(text).period == 2
    assert li.intervals.holm([0.01, 0.04]).tolist() == [0.02, 0.04]
    assert li.behaviour.rep_n(torch.tensor([text]), 2, lengths=[6]).tolist() == [0.6]
    nats = torch.tensor([[0.5, 1.5, 3.0]])
    of_array = li.behaviour.bin_by(nats, np.array([1.0, 2.0]))
    assert of_array.index.tolist() == li.behaviour.bin_by(nats, [1.0, 2.0]).index.tolist()
    sums, counts = [3.0, 4.0, 9.0], [1, 2, 3]
    of_lists, of_arrays = (
        li.intervals.mean_interval(*given, rng=np.random.default_rng(0))
        for given in ((sums, counts), (np.array(sums), np.array(counts)))
    )
    assert of_lists == of_arrays


def test_a_comparison_of_networks_is_at_equal_steps_or_operations():
    """Anything else would leave out the arm that makes the comparison one of equal operations."""
    with pytest.raises(ValueError, match='equal must be "steps" or "flops", got \'flop\''):
        li.experiments.ScratchSettings(equal="flop")


def test_a_description_that_no_file_could_hold_is_refused_before_the_fit():
    with pytest.raises(TypeError, match="corpus"):
        li.fit_affine_lens(BRIDGE, [], corpus=Path("texts.txt"), progress=False)
