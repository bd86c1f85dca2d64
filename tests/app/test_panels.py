"""The panels show the library's own numbers."""

import io
import json

import pandas as pd
import pytest

import lens_interventions as li
from lens_interventions.app.page import page
from lens_interventions.app.state import parse_state
from lens_interventions.app.subject import Origin, Subject
from tests.app.conftest import TEXT
from tests.support.clean import left_as_found
from tests.support.explorer import all_events, answer, client_of, close, events, heat_maps, refusal
from tests.support.tiny import shared_bridge, tiny_bridge

PATCH = {"layer": 1, "strength": 0.4, "mode": "add"}


@pytest.fixture(scope="module")
def read(subject):
    return li.logit_lens(subject.bridge, TEXT, top_k=10)


def test_read_shows_what_the_lens_reads(client, subject, read):
    view = answer(client, "read", text=TEXT, statistic="kl_final", include_input=False)["view"]
    (shown,) = heat_maps(view["figure"])
    assert close(shown, read.kl_final[1:, 0])
    assert view["points"] == list(read.points[1:])
    found = read.commitment()
    assert [token["name"] for token in view["strip"]] == list(found.names())


def test_tokens_come_before_the_numbers(client, read):
    names = [name for name, _ in events(client, "read", text=TEXT + ", they")]
    assert names == ["tokens", "view"]


def test_a_patch_of_the_last_token_alone_is_refused(client, subject):
    last = len(subject.tokens(parse_state({"text": TEXT}))) - 1
    for position, said in (
        (last, "its next token is not known"),
        (last + 3, f"there is no position {last + 3}"),
    ):
        chosen = {"text": TEXT, "panel": "patch", "only_position": True, "position": position}
        assert said in refusal(client, "patch", **chosen, **PATCH)
    answer(client, "patch", **(chosen | PATCH | {"position": last - 1}))


@pytest.mark.parametrize(
    ("name", "options"), [("top3", {"top": 3}), ("half", {"probability": 0.5})]
)
def test_the_strip_takes_the_criterion(client, read, name, options):
    view = answer(client, "read", text=TEXT, commitment=name)["view"]
    expected = list(read.commitment(**options).names())
    assert [token["name"] for token in view["strip"]] == expected


def test_last_positions_and_a_watched_token(client, subject):
    options = {"text": TEXT, "statistic": "watched_log_prob", "watch_text": " mean", "last": 4}
    view = answer(client, "read", **options)["view"]
    expected = li.logit_lens(subject.bridge, TEXT, watch=" mean", positions=slice(-4, None))
    (shown,) = heat_maps(view["figure"])
    assert close(shown, expected.watched_log_prob[1:, 0, :, 0])
    assert [token["position"] for token in view["strip"]] == expected.positions[0].tolist()
    assert [token["text"] for token in view["watched"]] == ["·mean"]


def test_a_cell_has_its_top_k_and_every_statistic(client, read):
    found = answer(client, "cell", text=TEXT, point="2_pre", position=5)
    cell = found["cell"]
    assert [token["id"] for token in cell["likeliest"]] == read.top_ids[2, 0, 5].tolist()
    expected = read.top_log_probs[2, 0, 5].tolist()
    assert [token["log_prob"] for token in cell["likeliest"]] == pytest.approx(expected)
    values = {line["label"]: line["value"] for line in cell["statistics"]}
    assert values["rank of next token"] == int(read.next_rank[2, 0, 5])
    assert values["entropy"] == pytest.approx(float(read.entropy[2, 0, 5]), abs=0.01)


def test_the_curves_show_every_token_that_leads_at_some_layer(client, subject, read):
    leaders = read.leaders(5)
    assert len(leaders) > 2
    curves = answer(client, "cell", text=TEXT, position=5)["curves"]["leaders"]
    expected = li.logit_lens(subject.bridge, TEXT, positions=[5], watch=leaders)
    lines = [trace["y"] for trace in curves["data"]]
    assert close(lines, expected.watched_log_prob[:, 0, 0].T)


def test_patch_shows_clean_patched_and_difference(client, subject, read):
    bridge = subject.bridge
    found = answer(client, "patch", panel="patch", text=TEXT, statistic="entropy", **PATCH)
    patch = li.NextTokenPatch(scale="norm", first_position=1, **PATCH)
    with bridge.hooks(fwd_hooks=patch.fwd_hooks(bridge, TEXT)):
        patched = li.logit_lens(bridge, TEXT)
    clean, changed, difference = heat_maps(found["view"]["figure"])
    assert close(clean, read.entropy[1:, 0])
    assert close(changed, patched.entropy[1:, 0])
    assert close(difference, (patched.entropy - read.entropy)[1:, 0])
    assert (patched.entropy != read.entropy).any()


def test_the_effect_on_each_token_is_the_exact_one(client, subject):
    exact = answer(client, "patch", panel="patch", text=TEXT, **PATCH)["exact"]
    patch = li.NextTokenPatch(scale="norm", first_position=1, **PATCH)
    expected = li.teacher_forced_log_probs(subject.bridge, TEXT, [None, patch])[:, 0].tolist()
    assert [exact["clean"], exact["patched"]] == [pytest.approx(row) for row in expected]
    assert len(exact["texts"]) == len(exact["clean"]) + 1


def test_the_chosen_position_alone_is_patched(client, read):
    options = {"panel": "patch", "text": TEXT, "only_position": True, "position": 3, **PATCH}
    found = answer(client, "patch", statistic="top1", **options)
    clean, patched, _ = heat_maps(found["view"]["figure"])
    before = [row[:3] for row in clean]
    assert [row[:3] for row in patched] == before
    assert [row[3] for row in patched] != [row[3] for row in clean]
    assert "choose a position first" in refusal(
        client, "patch", panel="patch", only_position=True, **PATCH
    )


def test_a_choice_that_the_panel_does_not_show_has_no_effect(client):
    plain, hidden = (
        answer(client, "patch", panel="patch", text=TEXT, **PATCH, **more)["exact"]["patched"]
        for more in ({}, {"only_generated": True})
    )
    assert hidden == plain
    options = {"panel": "write", "text": TEXT, "max_new_tokens": 6, **PATCH}
    for more in ({"only_position": True}, {"only_position": True, "position": 3}):
        assert events(client, "write", **options, **more) == events(client, "write", **options)


def test_compare_sets_matching_tokens_side_by_side(client, subject):
    other = TEXT.replace("say plasma", "then say")
    found = answer(client, "compare", panel="compare", text=TEXT, other_text=other)
    pair = li.align(li.logit_lens(subject.bridge, TEXT), li.logit_lens(subject.bridge, other))
    shown = heat_maps(found["view"]["figure"])
    assert close(shown[0], pair.first.top_logits[1:, 0, :, 0])
    assert close(shown[1], pair.second.top_logits[1:, 0, :, 0])
    assert found["view"]["left_out"] == [list(texts) for texts in pair.left_out]
    assert "second prompt" in refusal(client, "compare", panel="compare", other_text="")


def test_compare_sets_two_models_side_by_side(subject):
    other = tiny_bridge("llama", seed=1)
    with client_of(Subject(subject.bridge, Origin(), other=other)) as client:
        state = {"panel": "compare", "text": TEXT, "other_text": "", "statistic": "entropy"}
        shown = heat_maps(answer(client, "compare", **state)["view"]["figure"])
    assert close(shown[0], li.logit_lens(subject.bridge, TEXT).entropy[1:, 0])
    assert close(shown[1], li.logit_lens(other, TEXT).entropy[1:, 0])


@pytest.mark.usefixtures("small_default_lens")
def test_each_of_two_models_is_read_with_a_lens_fitted_to_it(subject):
    other = tiny_bridge("llama", seed=1)
    state = {"panel": "compare", "text": TEXT, "other_text": "", "lens": "fitted"}
    with client_of(Subject(subject.bridge, Origin(), other=other)) as client:
        view = answer(client, "compare", **state)["view"]
    shown = heat_maps(view["figure"])
    for numbers, model in zip(shown, (subject.bridge, other), strict=False):
        read = li.logit_lens(model, TEXT, lens=li.default_affine_lens(model, progress=False))
        assert close(numbers, read.top_logits[1:, 0, :, 0])


def test_a_second_model_with_another_tokenizer_is_refused(subject):
    other = tiny_bridge("llama", num_hidden_layers=1)
    other.tokenizer.add_tokens(["another"])
    with pytest.raises(ValueError, match="another tokenizer than"):
        Subject(subject.bridge, Origin(), other=other)


def test_a_second_model_of_another_depth_is_refused(subject):
    other = tiny_bridge("llama", num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"has 1 layers and .* has 3, so their layers cannot"):
        Subject(subject.bridge, Origin(), other=other)


def test_a_slope_map_is_shown_as_it_draws_itself(subject):
    slopes = li.slope_map(subject.bridge, [TEXT])
    shown = page(Subject(subject.bridge, Origin(), slopes=slopes))
    settings = json.loads(shown.split('type="application/json">')[1].split("</script>")[0])
    expected = json.loads(slopes.plot().to_json())
    assert settings["slopes"]["data"] == expected["data"]


def test_a_chat_is_laid_out_by_the_template():
    bridge = tiny_bridge("llama", num_hidden_layers=1)
    bridge.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}, {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}a, {% endif %}"
    )
    with client_of(Subject(bridge, Origin())) as client:
        view = answer(client, "read", chat=True, messages=["user", "when", "assistant", "then"])
        begun = answer(client, "read", chat=True, messages=["user", "when"])
        broken = refusal(client, "read", chat=True, messages=["user"])
    texts = ["".join(token["text"] for token in v["view"]["strip"]) for v in (view, begun)]
    assert texts == ["u,·when⏎a,·then⏎", "u,·when⏎a,␣"]
    assert "roles and contents in turns" in broken
    names = {"bridge": bridge}
    exec(view["view"]["recipe"]["python"], names)
    assert close(heat_maps(view["view"]["figure"])[0], names["trajectory"].top_logits[1:, 0, :, 0])


def test_figures_fill_the_page_while_their_cells_keep_text(client):
    def width(task, text, page=None):
        state = {"panel": task, "text": text, "width": page, **PATCH}
        return answer(client, task, **state)["view"]["figure"]["layout"]["width"]

    # One heat map; three below each other; three beside each other.
    for task, text in (("read", TEXT), ("patch", TEXT), ("patch", "say")):
        free = width(task, text)
        fitted = min(0.9 * free, 1240)
        assert width(task, text, int(fitted)) == pytest.approx(fitted, abs=1)
        # No room for text: the narrowest cells that have text are scrolled.
        narrowest = width(task, text, 300)
        assert 300 < narrowest < fitted
        assert width(task, text, 200) == narrowest


def test_what_is_saved_holds_the_numbers(client, read):
    file = answer(client, "csv", text=TEXT)["file"]
    saved, expected = (
        pd.read_csv(io.StringIO(content), keep_default_na=False)
        for content in (file["content"], read.to_dataframe().to_csv(index=False))
    )
    pd.testing.assert_frame_equal(saved, expected)
    page = answer(client, "html", text=TEXT)["file"]["content"]
    assert page.startswith("<!doctype html>")
    assert "Top guess of each layer" in page
    two = answer(client, "csv", panel="patch", text=TEXT, **PATCH)["file"]["content"]
    assert two.splitlines()[0].startswith('"reading","point","batch","pos"')
    assert two.count('\n"clean",') == two.count('\n"patched",') == len(read.to_dataframe())


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"strength": float("nan")}, "strength must be a finite number, got nan"),
        ({"layer": 99}, "the model has blocks 0 to 2, the patch asks for 99"),
        ({"source": "nobody"}, "source must be one of 'true'"),
        ({"lens": "given"}, "lens must be raw, fitted; got 'given'"),
        ({"statistic": "js_compare"}, "unknown statistic 'js_compare'"),
        ({"statistic": "watched_rank"}, "needs a token to watch"),
        ({"watch_text": " nonsense"}, "is not one token of this model"),
        ({"watch": [10**9]}, "is not in [0, 112)"),
        ({"text": ""}, "the text is empty"),
        ({"text": "say " * 200}, "tokens, and the explorer shows 128"),
        ({"chat": True}, "no chat template"),
        ({"last": 0}, "last must be at least 1"),
    ],
)  # fmt: skip
def test_the_library_says_what_is_wrong(client, state, sentence):
    assert sentence in refusal(client, "patch", panel="patch", **state)


@pytest.mark.usefixtures("small_default_lens")
def test_a_lens_is_fitted_for_a_patch_that_uses_one_while_the_page_sees_how_far_it_is():
    state = {"panel": "write", "text": TEXT, "lens": "fitted", "max_new_tokens": 2, "strength": 0.3}
    with left_as_found(shared_bridge("llama")) as bridge, client_of(Subject(bridge, Origin())) as c:
        plain = all_events(c, "write", **state, mode="add")
        assert "progress" not in dict(plain)
        assert "lens" not in plain[0][1]["recipe"]["python"].removeprefix("import lens")
        using = all_events(c, "write", **state, mode="correct")
        shares = [data["share"] for name, data in using if name == "progress"]
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert len(shares) > 5
        start = next(data for name, data in using if name == "start")
        assert "lens=lens" in start["recipe"]["python"]
