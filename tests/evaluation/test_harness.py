"""Requests of lm-evaluation-harness, answered as the definition of the patch has it."""

import json
import math
import sys

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import processors
from transformers import GenerationConfig

import lens_interventions as li
from lens_interventions.evaluation.decoding import Decoding
from tests.support.reference_generation import next_logits
from tests.support.tiny import shared_bridge, tiny_bridge, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("exact")

PATCH = li.NextTokenPatch(layer=1, strength=0.7, scale="norm")
PAIRS = [
    ("the people say", " plasma"),
    ("", "The dog"),
    ("No.", " the time"),
    ("they mean ", "blood"),  # the harness moves the space
    ("the people say", " the fox jumps over"),
]
LONG = "the quick brown fox jumps over the lazy dog; THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG!"
BOS = 0


def requests(kind, arguments):
    return [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]


def loglikelihood(model, pairs=PAIRS):
    return model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)


def naive(bridge, context, continuation, patch, *, text_seed=0):
    """A token after the other, each patched once it is known: log-probability, and if greedy."""
    known, total, greedy = list(context), 0.0, True
    for token in continuation:
        logits = next_logits(bridge, known, patch, len(context), text_seed)
        total += float(logits.log_softmax(-1)[token])
        greedy &= int(logits.argmax()) == token
        known.append(token)
    return total, greedy


def ids(text):
    return tiny_tokenizer().encode(text, add_special_tokens=False)


@pytest.mark.parametrize(
    "patch", [None, PATCH, li.NextTokenPatch(layer=0, strength=0.9, positions="generated")]
)
def test_continuations_are_scored_token_by_token(llama, patch):
    answers = loglikelihood(li.as_harness_model(llama, patch, batch_size=3))
    split = [(a.rstrip(), " " * a.endswith(" ") + b) for a, b in PAIRS]
    for (context, continuation), (log_prob, greedy) in zip(split, answers, strict=True):
        expected = naive(llama, [BOS, *ids(context)], ids(continuation), patch)
        assert (log_prob, greedy) == (pytest.approx(expected[0], abs=1e-9), expected[1])


def test_what_greedy_decoding_writes_is_greedy(llama):
    model = li.as_harness_model(llama, PATCH)
    context = "the people say"
    (written,) = model.generate_until(
        requests("generate_until", [(context, {"max_gen_toks": 1})]), disable_tqdm=True
    )
    likeliest, other = loglikelihood(model, [(context, written), (context, written + LONG)])
    assert (likeliest[1], other[1]) == (True, False)


def test_order_and_batches_change_nothing(llama):
    patch = li.NextTokenPatch(layer=1, strength=0.7, source="random")
    alone = loglikelihood(li.as_harness_model(llama, patch, batch_size=1))
    together = loglikelihood(li.as_harness_model(llama, patch), PAIRS[::-1])[::-1]
    assert [log_prob for log_prob, _ in together] == pytest.approx([lp for lp, _ in alone])


def test_answers_to_one_question_share_their_draws_and_other_texts_do_not(llama):
    seeds = []

    def noted(site):
        seeds.append(site.text.seed.tolist())
        return torch.zeros_like(site.resid)

    model = li.as_harness_model(llama, li.NextTokenPatch(layer=1, strength=0.1, source=noted))
    loglikelihood(model, [("the people say", " plasma"), ("the people say", " No.")])
    assert len(set(seeds[-1])) == 1
    texts = requests("loglikelihood_rolling", [("people say plasma",), ("the people say",)])
    model.loglikelihood_rolling(texts, disable_tqdm=True)
    assert len(set(seeds[-1])) == 2


def test_order_and_batches_change_nothing_of_what_is_written(llama):
    patch = li.NextTokenPatch(layer=1, strength=0.9, source="random", scale="norm")
    asked = [(text, {"max_gen_toks": 8, "until": []}) for text in ("No.", LONG, "the people say")]

    def written(batch_size, arguments):
        model = li.as_harness_model(llama, patch, batch_size=batch_size)
        return model.generate_until(requests("generate_until", arguments), disable_tqdm=True)

    alone = written(1, asked)
    assert written(8, asked) == alone
    assert written(2, asked[::-1])[::-1] == alone


@pytest.fixture(scope="module")
def hugging_face():
    """The harness's own model, of the weights of the tiny Llama."""
    return HFLM(
        pretrained=tiny_model("llama"),
        tokenizer=tiny_tokenizer(),
        add_bos_token=False,
        max_length=16,
        device="cpu",
        batch_size=2,
    )


def test_it_stops_at_the_tokenizer_s_end_of_text_whatever_the_config_says():
    bridge, own = tiny_bridge("llama"), tiny_model("llama")
    for model in (bridge.original_model, own):
        model.generation_config = GenerationConfig(
            eos_token_id=[50], pad_token_id=2, bos_token_id=0
        )
    words = ["when", "people", "say", "plasma", "they", "mean", "a", "state", "of", "matter"]
    asked = [
        (" ".join(words[i : i + n]), {"until": ["zzz"], "max_gen_toks": 40})
        for n in range(1, 5)
        for i in range(len(words) - n)
    ]
    theirs = HFLM(pretrained=own, tokenizer=tiny_tokenizer(), add_bos_token=True, device="cpu")
    expected = theirs.generate_until(requests("generate_until", asked), disable_tqdm=True)
    ours = li.as_harness_model(bridge, None, batch_size=8)
    assert ours.generate_until(requests("generate_until", asked), disable_tqdm=True) == expected


def test_without_a_patch_it_is_the_model_of_the_harness(llama, hugging_face):
    """Also where contexts are cut, and where a text is read in windows."""
    assert len(ids(LONG)) > 2 * 16
    ours = li.as_harness_model(llama, None, prepend_bos=False, max_length=16, max_gen_toks=5)
    pairs = [*PAIRS, (LONG, " mean")]
    with pytest.warns(UserWarning, match="1 of 6 contexts are too long"):
        answers = loglikelihood(ours, pairs)
    for answer, expected in zip(answers, loglikelihood(hugging_face, pairs), strict=True):
        assert answer == (pytest.approx(expected[0], abs=1e-9), expected[1])
    texts = requests("loglikelihood_rolling", [(LONG,), ("No.",), ("",)])
    rolled = ours.loglikelihood_rolling(texts, disable_tqdm=True)
    assert rolled == pytest.approx(hugging_face.loglikelihood_rolling(texts, disable_tqdm=True))
    wanted = requests(
        "generate_until",
        [
            ("the people say", {"until": ["e"], "max_gen_toks": 6}),
            ("No.", {"until": [], "max_gen_toks": 6}),
            ("No.", {"until": ["zz"], "max_gen_toks": 4, "repetition_penalty": 1.9}),
        ],
    )
    written = ours.generate_until(wanted, disable_tqdm=True)
    assert written == hugging_face.generate_until(wanted, disable_tqdm=True)


def test_a_text_is_read_after_one_bos_in_windows_of_their_own(llama):
    model = li.as_harness_model(llama, PATCH, max_length=16)
    tokens = ids(LONG)[:20]
    text = tiny_tokenizer().decode(tokens)
    (total,) = model.loglikelihood_rolling(
        requests("loglikelihood_rolling", [(text,)]), disable_tqdm=True
    )
    first = naive(llama, [BOS], tokens[:16], PATCH)[0]
    # The last window is a full one, of which the tokens are scored that are left.
    rest = naive(llama, tokens[3:16], tokens[16:], PATCH)[0]
    assert total == pytest.approx(first + rest)


def test_a_text_that_begins_with_bos_gets_no_second_one(llama):
    model = li.as_harness_model(llama, PATCH)
    assert model.tok_encode("<s>the") == model.tok_encode("the") == [BOS, *ids("the")]


def test_a_tokenizer_that_puts_nothing_before_a_text_puts_nothing_there():
    bare = tiny_tokenizer()
    bare.bos_token = bare.eos_token = bare.pad_token = None
    bare.backend_tokenizer.post_processor = processors.ByteLevel()
    bare.add_bos_token = False
    bridge = li.load_model(hf_model=tiny_model("llama"), tokenizer=bare)
    model = li.as_harness_model(bridge, PATCH)
    assert model.tok_encode("the") == bridge.to_tokens("the")[0].tolist() == ids("the")
    with pytest.raises(ValueError, match=r"the text is empty: give at least one token to read$"):
        li.generate(bridge, "", PATCH, prepend_bos=True, max_new_tokens=1)


def test_continuations_are_those_of_generate_up_to_a_text_that_ends_them(llama):
    model = li.as_harness_model(llama, PATCH, batch_size=2)
    context = "the people say"
    text = li.generate(llama, context, PATCH, max_new_tokens=12).texts[0]
    end = text[3:5]
    # Text that ends a continuation may well be in the context.
    asked = [
        (context, {"until": end}),
        (f"{end} and", {"until": [end], "max_gen_toks": 8}),
        ("", {}),
    ]
    wanted = requests("generate_until", asked)
    model.max_gen_toks = 12
    written = model.generate_until(wanted, disable_tqdm=True)
    other = li.generate(llama, f"{end} and", PATCH, max_new_tokens=8).texts[0]
    begun = li.generate(llama, [[BOS]], PATCH, max_new_tokens=12).texts[0]
    assert written == [text.split(end)[0], other.split(end)[0], begun]
    assert model.generate_until(wanted[::-1], disable_tqdm=True)[::-1] == written


def test_a_request_that_is_repeated_is_sampled_anew(llama):
    options = {"do_sample": True, "temperature": 2.0, "top_k": 0, "max_gen_toks": 8}
    wanted = requests("generate_until", [("No.", options), ("No.", options), ("the", options)])
    first = li.as_harness_model(llama, PATCH, seed=1).generate_until(wanted, disable_tqdm=True)
    again = li.as_harness_model(llama, PATCH, seed=1, batch_size=1)
    assert len(set(first)) == 3
    assert again.generate_until(wanted, disable_tqdm=True) == first
    other = li.as_harness_model(llama, PATCH, seed=2).generate_until(wanted, disable_tqdm=True)
    # The first request of a seed must not be drawn as the second one of the seed before.
    assert not {*other} & {*first}


def test_a_request_is_decoded_by_its_numbers():
    """What is for sampling counts only in sampling; a penalty counts in greedy decoding too."""
    numbers = {"top_k": 4, "top_p": 0.5, "repetition_penalty": 1.3, "min_p": 0}
    asked = {"until": [], "max_gen_toks": 3, "temperature": 0.8, **numbers}
    drawn = Decoding.from_request({**asked, "do_sample": True}).sampling()
    assert (drawn["do_sample"], drawn["temperature"]) == (True, 0.8)
    assert [type(each).__name__ for each in drawn["logits_processor"]] == [
        "RepetitionPenaltyLogitsProcessor",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
    ]
    greedy = Decoding.from_request({**asked, "do_sample": False}).sampling()
    (penalty,) = greedy.pop("logits_processor")
    assert (penalty.penalty, greedy) == (1.3, {})
    # As in transformers, a share of 0 leaves the likeliest token, and a penalty of 0 is refused.
    narrow = Decoding.from_request({**asked, "do_sample": True, "top_p": 0.0}).sampling()
    assert narrow["logits_processor"][-1].top_p == 0
    with pytest.raises(ValueError, match="penalty"):
        Decoding.from_request({**asked, "do_sample": False, "repetition_penalty": 0.0}).sampling()
    with pytest.raises(ValueError, match=r"0\.0.+greedy decoding is do_sample=False"):
        Decoding.from_request({**asked, "do_sample": True, "temperature": 0.0})


def test_a_local_task_is_evaluated(llama, tmp_path):
    """Three of four questions have the answer that the patched model likes best."""
    contexts = ["the people say", "No.", "the lazy dog", "they mean"]
    choices = [" blood", " plasma", " the fox"]
    scores = [
        [naive(llama, [BOS, *ids(c)], ids(choice), PATCH)[0] for choice in choices]
        for c in contexts
    ]
    gold = [max(range(3), key=row.__getitem__) for row in scores]
    gold[3] = (gold[3] + 1) % 3
    lines = [
        json.dumps({"text": c, "choices": choices, "gold": g})
        for c, g in zip(contexts, gold, strict=True)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    task = {
        "task": "favourites",
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(tmp_path / "test.jsonl")},
            "cache_dir": str(tmp_path / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    results = simple_evaluate(
        model=li.as_harness_model(llama, PATCH),
        tasks=[task],
        # Reading the thousands of tasks that the harness brings takes longer than all tests here.
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    assert results["results"]["favourites"]["acc,none"] == 0.75
    assert results["config"]["patch"] == str(PATCH)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"num_beams": 4}, NotImplementedError, "asks for num_beams .* a patched model knows"),
        ({"max_gen_toks": 128}, ValueError, "128 new tokens leave no room .* ask for fewer"),
    ],
)
def test_what_cannot_be_generated_is_refused(llama, options, error, said):
    model = li.as_harness_model(llama, PATCH)
    with pytest.raises(error, match=said):
        model.generate_until(requests("generate_until", [("No.", options)]), disable_tqdm=True)


def test_a_continuation_beyond_the_context_is_refused(llama):
    model = li.as_harness_model(llama, PATCH, max_length=4)
    with pytest.raises(ValueError, match=r"of \d+ tokens cannot be scored.*from 1 to max_length=4"):
        loglikelihood(model, [("No.", LONG)])


def test_values_that_are_no_numbers_are_refused(llama):
    patch = li.NextTokenPatch(layer=1, strength=1.0, mode=lambda site, *_: site.resid * math.nan)
    with pytest.raises(ValueError, match="logits are not a number in text 0"):
        loglikelihood(li.as_harness_model(llama, patch), [("The people", " say")])
    with pytest.raises(ValueError, match="batch_size must be at least 1, got -1"):
        li.as_harness_model(llama, PATCH, batch_size=-1)
    with pytest.raises(ValueError, match="max_gen_toks must be at least 1, got 0"):
        li.as_harness_model(llama, PATCH, max_gen_toks=0)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("patch", "options", "said"),
    [
        ([None], {}, r"one NextTokenPatch or None, got list \[None\]: call it once for each patch"),
        (PATCH, {"batch_size": "auto"}, "batch_size must be a whole number, got 'auto'"),
        (PATCH, {"max_gen_toks": 2.5}, "max_gen_toks must be a whole number, got 2.5"),
        (PATCH, {"seed": "a"}, "seed must be a whole number, got 'a'"),
    ],
)
def test_arguments_of_another_type_are_refused(llama, patch, options, said):
    with pytest.raises(TypeError, match=said):
        li.as_harness_model(llama, patch, **options)


def test_a_length_that_the_model_does_not_have_is_refused():
    with pytest.raises(ValueError, match="from 2 to the model's context 128, got 129"):
        li.as_harness_model(shared_bridge("llama"), PATCH, max_length=129)


def test_without_the_harness_it_says_what_to_install(llama, monkeypatch):
    monkeypatch.delitem(sys.modules, "lens_interventions.evaluation.patched_lm", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[eval\]"'):
        li.as_harness_model(llama, PATCH)


def test_a_text_that_ends_a_continuation_may_be_its_first_tokens(llama, monkeypatch):
    """It ends after them, and decodes no further."""
    context, decoded = "the people say", []

    def noted(*args, **options):
        decoded.append(li.generate(*args, **options))
        return decoded[-1]

    monkeypatch.setattr("lens_interventions.evaluation.patched_lm.generate", noted)
    first = li.generate(llama, context, PATCH, max_new_tokens=2)
    bounds = {"until": [first.texts[0]], "max_gen_toks": 8}
    model = li.as_harness_model(llama, PATCH)
    model.generate_until(requests("generate_until", [(context, bounds)]), disable_tqdm=True)
    assert decoded[0].tokens.tolist() == first.tokens.tolist()
