"""The last_word experiment from start to end, its measurements, and verdicts on planted data."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

import lens_interventions as li
from lens_interventions.experiments import load_result, read_tables
from lens_interventions.experiments.last_word import LastWordSettings, last_word
from lens_interventions.experiments.last_word.analysis import OUTPUT, WHOLE, analyse
from lens_interventions.experiments.last_word.measurements import (
    ASKED,
    FIXED,
    OTHER,
    OWN,
    PLAIN,
    REST,
    SENTENCE,
    WORD,
    _before_word,
    ends_in,
    measure_request,
    measure_sources,
)
from tests.support.small_last_word import SETTINGS, TEMPLATE, chatty_bridge
from tests.support.tiny import spaced_tokenizer, tiny_bridge, tiny_model

pytestmark = pytest.mark.usefixtures("without_gradients")

# Two words that the small tokenizer spells with as many tokens.
ITEM = {
    "topic": "time",
    "word": "fox",
    "other": "dog",
    "phrasing": "say {word} then",
    "asked": "say fox then",
    "asked_other": "say dog then",
    "plain": "say",
    "sentence": "they mean the other time",
}


@pytest.fixture(scope="module")
def chatty():
    return chatty_bridge()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from start to end."""
    out = tmp_path_factory.mktemp("last_word")
    last_word(chatty_bridge, settings=SETTINGS, out=out)
    return out


def test_a_run_from_start_to_end(finished: Path) -> None:
    result = load_result(finished)
    influence = result.to_dataframe()
    assert set(influence["part"]) == {WHOLE, "part 1 of 2", "part 2 of 2"}
    assert set(influence["sentence"]) == {OWN, FIXED}
    # The embedding of a token of the sentence knows nothing of the request.
    first = influence[(influence["point"] == "0_pre") & (influence["part"] == "part 2 of 2")]
    assert (first["estimate"] == 0).all()
    figures = result.figures()
    assert {finding.figure for finding in result.verdicts} <= set(figures)
    assert figures["influence"].data[-1].x == ("input", "1", "2", "final")
    again = analyse(SETTINGS, read_tables(finished))
    assert_frame_equal(again.tables["influence"], influence)


def test_what_is_read_is_the_word_where_the_sentence_is_predicted(chatty) -> None:
    rows = measure_request(chatty, ITEM, new_tokens=4, every=1, parts=2)
    prompt = li.chat_tokens(chatty, [{"role": "user", "content": ITEM["asked"]}])
    sentence = chatty.to_tokens(ITEM["sentence"], prepend_bos=False)[0].tolist()
    word = int(chatty.to_tokens(" fox", prepend_bos=False)[0, 0])
    logits = chatty(torch.tensor([[*prompt, *sentence]]))[0, len(prompt) - 1 : -1]
    log_probs = logits.log_softmax(-1)[:, word].double().numpy()
    here = rows[(rows["sentence"] == FIXED) & (rows["request"] == ASKED)]
    output = here[here["label"] == "final_post"].sort_values("part")["log_prob"]
    half = -(-len(sentence) // 2)
    expected = [log_probs[:half].mean(), log_probs[half:].mean()]
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_the_word_is_read_where_a_tokenizer_puts_a_space_before_each_text() -> None:
    """There " matter" alone becomes a space and a word, but one token in a sentence."""
    model = tiny_model("llama", max_position_embeddings=512)
    bridge = li.load_model(hf_model=model, tokenizer=spaced_tokenizer(), device="cpu")
    bridge.tokenizer.chat_template = TEMPLATE
    item = {**ITEM, "word": "matter", "sentence": "they mean a state of"}
    rows = measure_request(bridge, item, new_tokens=4, every=1, parts=1)
    prompt = li.chat_tokens(bridge, [{"role": "user", "content": item["plain"]}])
    *sentence, word = bridge.to_tokens("they mean a state of matter", prepend_bos=False)[0].tolist()
    assert bridge.tokenizer.convert_ids_to_tokens(word) == "\u2581matter"
    logits = bridge(torch.tensor([[*prompt, *sentence]]))[0, len(prompt) - 1 : -1]
    here = rows.query("sentence == @FIXED and request == @PLAIN and label == 'final_post'")
    expected = float(logits.log_softmax(-1)[:, word].double().mean())
    np.testing.assert_allclose(here["log_prob"], expected, atol=1e-5)  # in float32


def test_exchanging_everything_at_the_bottom_loses_the_whole_difference(chatty) -> None:
    """At layer 0 only the word differs, so it carries all; elsewhere there is nothing to lose."""
    rows = measure_sources(chatty, ITEM, layers=[0, 1, 2]).set_index(["layer", "where"])
    whole = rows["whole"].iloc[0]
    assert abs(whole) > 1e-3
    np.testing.assert_allclose(rows.loc[(0, WORD), "lost"], whole, atol=1e-6)
    np.testing.assert_allclose(rows.loc[0, "lost"][[REST, SENTENCE]], 0, atol=1e-6)
    # Further up the sentence has taken some of it over.
    assert abs(rows.loc[(2, SENTENCE), "lost"]) > 1e-6


def test_words_of_other_lengths_cannot_be_exchanged(chatty) -> None:
    item = {**ITEM, "asked_other": "say quick brown fox"}
    assert measure_sources(chatty, item, layers=[0]).empty


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("The sea and the garden.", True),
        ('It is a "Garden"!\n', True),
        ("The garden is green.", False),
        ("gardens", False),
        ("...", False),
    ],
)
def test_marks_after_the_last_word_do_not_matter(text: str, ends: bool) -> None:
    assert ends_in(text, "garden") is ends


def test_a_sentence_is_cut_off_before_the_word(chatty) -> None:
    ids = chatty.to_tokens("they say plasma then plasma", prepend_bos=False)[0].tolist()
    kept = _before_word(chatty, ids, "plasma")
    assert chatty.tokenizer.decode(kept).strip() == "they say"
    assert _before_word(chatty, ids, "garden") == ids
    assert _before_word(chatty, ids, "lasma") == ids  # inside another word it is none


def planted(*effects: float, at: str = "final_post") -> dict[str, pd.DataFrame]:
    """Rows of 10 words and 6 topics; asking adds nats at one point and nothing elsewhere.

    There is one effect for all three phrasings of the request, or one for each.
    """
    rng = np.random.default_rng(1)
    rows = []
    items = li.materials.last_words()
    phrasings = list(dict.fromkeys(item.phrasing for item in items))
    for item in items:
        effect = effects[phrasings.index(item.phrasing) % len(effects)]
        level = rng.normal(-10, 1)
        for sentence in (OWN, FIXED):
            for request in (ASKED, OTHER, PLAIN):
                for point, label in enumerate(("0_pre", "1_pre", "2_pre", "final_post")):
                    for part in range(SETTINGS.parts):
                        added = effect * (request == ASKED and label == at)
                        rows.append(
                            {
                                "word": item.word,
                                "topic": item.topic,
                                "phrasing": item.phrasing,
                                "sentence": sentence,
                                "request": request,
                                "point": point,
                                "label": label,
                                "part": part,
                                "log_prob": level + added + rng.normal(0, 0.1),
                                "log_rank": 3.0,
                                "ends": request == ASKED and effect > 0,
                                "said": "",
                            }
                        )
    columns = ["word", "topic", "phrasing", "layer", "where", "lost", "whole"]
    sources = pd.DataFrame(columns=columns)
    return {"along": pd.DataFrame(rows), "sources": sources}


@pytest.mark.parametrize(
    ("effect", "outcomes"),
    [(1.0, ["no effect", "helps", "helps"]), (-1.0, ["no effect", "hurts", "no effect"])],
)
def test_verdicts_on_planted_data(effect: float, outcomes: list[str]) -> None:
    analysis = analyse(SETTINGS, planted(effect))
    assert [finding.verdict.outcome for finding in analysis.verdicts] == outcomes
    at_output = analysis.verdicts[1]
    assert OUTPUT in at_output.question
    interval = at_output.verdict.interval
    assert interval.low < effect < interval.high


def test_the_first_question_is_about_the_middle_third_of_the_points() -> None:
    """Of four points that is the second."""
    for point, outcome in (("0_pre", "no effect"), ("1_pre", "helps"), ("2_pre", "no effect")):
        in_the_middle = analyse(SETTINGS, planted(1.0, at=point)).verdicts[0]
        assert in_the_middle.verdict.outcome == outcome


def test_what_one_phrasing_of_three_does_is_not_certain_of_requests() -> None:
    """Every word and topic has the same mean, so words and topics alone would leave no doubt."""
    analysis = analyse(SETTINGS, planted(0.0, 3.0, 0.0))
    _, at_output, ends = (finding.verdict for finding in analysis.verdicts)
    for verdict, estimate in ((at_output, 1.0), (ends, 1 / 3)):
        assert verdict.outcome == "undecided"
        assert verdict.interval.low < 0 < verdict.interval.high
        assert verdict.interval.estimate == pytest.approx(estimate, abs=0.1)
    shares = analysis.tables["ends"].set_index("request")
    assert shares.loc[ASKED, ["low", "high"]].tolist() == [0, 1]


def test_sentences_that_all_end_alike_leave_room_for_others() -> None:
    shares = analyse(SETTINGS, planted(1.0)).tables["ends"].set_index("request")
    assert shares.loc[ASKED, "estimate"] == 1
    assert 0.8 < shares.loc[ASKED, "low"] < 1


def test_a_model_without_a_chat_template_is_refused() -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        last_word(tiny_bridge("llama"), settings=SETTINGS)


def test_requests_hold_their_word_and_no_other() -> None:
    items = [asdict(item) for item in li.materials.last_words()]
    assert len({(item["word"], item["topic"]) for item in items}) == 60
    words = {item["word"] for item in items}
    assert len({item["phrasing"] for item in items}) == 3
    for item in items:
        assert item["phrasing"].format(**item) == item["asked"]
        assert item["word"] != item["other"]
        assert item["asked"].replace(item["word"], item["other"]) == item["asked_other"]
        assert not words & set(item["plain"].strip(".").split())
        assert not words & set(item["sentence"].replace(",", "").split())


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="parts must be at least 2"):
        replace(SETTINGS, parts=1)
    with pytest.raises(ValueError, match=r"parts must be at most \d+, the tokens of the shortest"):
        last_word(chatty_bridge, settings=replace(SETTINGS, parts=200, new_tokens=200))
    with pytest.raises(ValueError, match="61 were asked for"):
        last_word(chatty_bridge, settings=replace(SETTINGS, requests=61))
    assert LastWordSettings.preset("full").requests == 60


def test_sentences_that_are_too_short_to_be_divided_are_named() -> None:
    with pytest.raises(ValueError, match="new_tokens must be at least 7, got 6"):
        replace(SETTINGS, parts=7)
    rows = planted(1.0)
    rows["along"] = rows["along"].query("sentence != @OWN")
    with pytest.raises(ValueError, match="has 2 tokens before the word: ask for fewer parts"):
        analyse(SETTINGS, rows)
