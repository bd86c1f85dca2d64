"""The panel that writes shows what `generate` and transformers write."""

import pytest

import lens_interventions as li
from lens_interventions.measures.behaviour import find_loops
from tests.app.conftest import TEXT
from tests.support.explorer import answer, events, refusal

PATCH = {"layer": 1, "strength": 0.4, "mode": "add"}


def written(found, arm):
    return [data for name, data in found if name == "token" and data["arm"] == arm]


SAMPLED = {"temperature": 1.0, "top_k": 20, "repetition_penalty": 1.3, "seed": 7}


def test_write_streams_what_generate_writes(client, subject):
    options = {"panel": "write", "text": TEXT, "max_new_tokens": 24, **PATCH}
    found = events(client, "write", **options)
    assert found[0][0] == "start"
    assert found[-1][0] == "end"
    patch = li.NextTokenPatch(scale="norm", first_position=1, **PATCH)
    out = li.generate(subject.bridge, TEXT, [None, patch], max_new_tokens=24)
    for row, arm in enumerate(("clean", "patched")):
        tokens = written(found, arm)
        ids = out.tokens[row][out.tokens[row] >= 0]
        assert [token["id"] for token in tokens] == ids.tolist()
        log_probs = out.log_probs[row, : len(ids)].tolist()
        assert [token["log_prob"] for token in tokens] == pytest.approx(log_probs)
        whole = subject.bridge.tokenizer.decode(
            subject.bridge.to_tokens(TEXT)[0].tolist() + ids.tolist()
        )
        text = "".join(token["text"] for token in tokens)
        assert whole.rstrip("\N{REPLACEMENT CHARACTER}").endswith(text)
        said = [token["loops"] for token in tokens if token["loops"] is not None]
        loops = [[loop.start, loop.end, loop.period] for loop in find_loops(ids)]
        assert (said[-1] if said else []) == loops


def test_sampling_rules_and_seeds_are_those_of_transformers(client, subject):
    found = events(client, "write", panel="write", text=TEXT, max_new_tokens=8, **PATCH, **SAMPLED)
    again = events(client, "write", panel="write", text=TEXT, max_new_tokens=8, **PATCH, **SAMPLED)
    assert written(found, "patched") == written(again, "patched")
    from transformers import RepetitionPenaltyLogitsProcessor, TopKLogitsWarper

    out = li.generate(
        subject.bridge,
        TEXT,
        max_new_tokens=8,
        do_sample=True,
        logits_processor=[RepetitionPenaltyLogitsProcessor(1.3), TopKLogitsWarper(20)],
        seed=7,
    )
    assert [token["id"] for token in written(found, "clean")] == out.tokens[0].tolist()


def test_a_branch_goes_on_from_another_token(client, subject):
    options = {"panel": "write", "text": TEXT, **PATCH}
    first = written(events(client, "write", max_new_tokens=6, **options), "patched")
    prefix = [token["id"] for token in first[:3]]
    other = answer(client, "alternatives", prefix=prefix, arm="patched", **options)["alternatives"]
    assert other["likeliest"][0]["id"] == first[3]["id"]  # what was written, greedily
    assert other["likeliest"][0]["log_prob"] == pytest.approx(first[3]["log_prob"])
    branch = [*prefix, other["likeliest"][1]["id"]]
    found = events(client, "write", max_new_tokens=5, prefix=branch, **options)
    given = subject.bridge.to_tokens(TEXT)[0].tolist()
    patch = li.NextTokenPatch(scale="norm", first_position=1, **PATCH)
    out = li.generate(subject.bridge, [*given, *branch], patch, max_new_tokens=5)
    assert [token["id"] for token in written(found, "patched")] == out.tokens[0].tolist()


def test_a_branch_that_patches_only_what_is_generated_keeps_to_its_prompt(client, subject):
    """The tokens of the prefix are generated ones, and those of the text are not."""
    options = {"panel": "write", "text": TEXT, "only_generated": True, **PATCH, "strength": 0.9}
    given = subject.bridge.to_tokens(TEXT)[0].tolist()
    patch = li.NextTokenPatch(
        scale="norm", first_position=1, positions="generated", **PATCH | {"strength": 0.9}
    )
    prefix = [20, 21, 33]
    out = li.generate(
        subject.bridge, [*given, *prefix], patch, max_new_tokens=8, prompt_length=len(given)
    )
    other = li.generate(subject.bridge, [*given, *prefix], patch, max_new_tokens=8)
    assert (out.log_probs - other.log_probs).abs().max() > 1e-3
    found = events(client, "write", max_new_tokens=8, prefix=prefix, **options)
    log_probs = [token["log_prob"] for token in written(found, "patched")]
    assert log_probs == pytest.approx(out.log_probs[0].tolist())
    view = answer(client, "alternatives", prefix=prefix, arm="patched", **options)["alternatives"]
    assert view["likeliest"][0]["log_prob"] == pytest.approx(float(out.log_probs[0, 0]))


def test_rules_that_no_sampler_has_are_refused_before_the_view_is_emptied(client):
    wrong = {"temperature": 1.0, "top_p": 5.0}
    ((name, data),) = events(client, "write", panel="write", text=TEXT, **wrong, **PATCH)
    assert name == "error"
    assert "top_p" in data["message"]


@pytest.mark.parametrize("token", [-1, 10**30])
def test_a_prefix_of_ids_that_the_model_lacks_is_refused(client, token):
    said = refusal(client, "write", panel="write", text=TEXT, prefix=[token], **PATCH)
    assert said == f"token id {token} is not in [0, 112)"
