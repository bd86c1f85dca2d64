"""The copying experiment: planted effects and nulls, its halves, its settings."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from torch import Tensor

from lens_interventions import materials
from lens_interventions.experiments import CopyingSettings, Result, copying
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.design.material import (
    induction_sequences,
    template_sequences,
    text_sequences,
)
from lens_interventions.experiments.engine.json_values import from_values, to_values
from lens_interventions.intervention.site import PatchSite
from lens_interventions.intervention.sources import SOURCES
from tests.support.planted import faint_bridge, planted_bridge
from tests.support.tiny import shared_bridge

pytestmark = [pytest.mark.usefixtures("few_templates"), pytest.mark.xdist_group("copying")]

SETTINGS = CopyingSettings(
    layers=(0, 1),
    strengths=(0.3,),
    modes=("interpolate", "correct"),
    shortlist=2,
    induction_sequences=(8, 12),
    induction_length=16,
    template_words=(1, 2),
    texts=("prose",),
    documents=(4, 8),
    document_tokens=48,
    smallest_copy=0.25,
    smallest_text=0.25,
    resampling=Resampling(n_resamples=999),
)
CONTROLS = {"random", "shuffled", "current", "guess", "direction"}


def outcomes(result: Result) -> dict[str, str]:
    questions = result.to_dataframe()["question"].unique()
    return {q: f.verdict.outcome for q, f in zip(questions, result.verdicts, strict=True)}


@pytest.fixture(scope="module")
def planted(few_templates: None) -> Result:
    return copying(planted_bridge, settings=SETTINGS)


def test_the_planted_defect_is_found(planted: Result) -> None:
    found = outcomes(planted)
    assert found["induction"] == found["templates"] == found["copyable"] == "helps"
    contrasts = planted.to_dataframe()
    headline = contrasts[(contrasts["measure"] == "loss") & (contrasts["minus"] != "none")]
    induction = headline[headline["question"] == "induction"].iloc[0]
    # Block 1 copies beliefs; below it there are none to repair.
    assert induction["layer"] == 1
    # By hand: beliefs are wrong, so a copied one costs some 6 nats and the truth next to nothing;
    # a patch of 0.3 goes more than half of the way.
    assert induction["estimate"] < -2
    assert induction["p_holm"] < 0.05


def test_the_effect_over_depth_is_where_it_was_planted(planted: Result) -> None:
    grid = planted.tables["grid"]
    induction = grid[(grid["question"] == "induction") & (grid["measure"] == "loss")]
    by_layer = induction.groupby("layer")["estimate"].min()
    assert by_layer[1] < -2 < by_layer[0]
    assert (induction[induction["layer"] == 1]["p_holm"] < 0.05).all()
    assert len(induction) == 4


def test_the_same_pipeline_finds_nothing_with_the_source_swapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def another_random_token(site: PatchSite) -> Tensor:
        return (site.draw_integers(len(site.embedding.weight)) + 17) % len(site.embedding.weight)

    swapped = replace(SOURCES["true"], function=another_random_token)
    monkeypatch.setitem(SOURCES, "true", swapped)
    result = copying(planted_bridge, settings=SETTINGS)
    found = outcomes(result)
    assert found["induction"] == "no effect"
    assert "helps" not in found.values()


def test_a_model_that_hardly_copies_is_hardly_helped() -> None:
    result = copying(faint_bridge, settings=SETTINGS)
    # Guessing at random it is never surprised by 6 nats: about that there is nothing to say.
    found = outcomes(result)
    assert found.pop("surprise") == "undecided"
    assert result.verdicts[-1].verdict.interval.n == 0
    assert set(found.values()) == {"no effect"}
    assert result.tables["grid"].query("layer == 1")["estimate"].abs().max() < 0.05


def test_every_source_is_reported_for_every_question(planted: Result) -> None:
    contrasts = planted.to_dataframe()
    for question, rows in contrasts.groupby("question"):
        main = rows[rows["measure"] == rows["measure"].iloc[0]]
        assert set(main[main["minus"] == "none"]["source"]) == {"true", *CONTROLS}, question
        against = main[main["minus"] != "none"]
        assert against["source"].tolist() == ["true"]
    conditions = planted.tables["conditions"]
    assert set(conditions["source"]) == {"none", "true", *CONTROLS}
    # True minus no patch is the difference of the two means.
    loss = conditions[(conditions["question"] == "induction") & (conditions["measure"] == "loss")]
    means = loss.set_index("source")["mean"]
    row = contrasts.query("question == 'induction' and measure == 'loss' and source == 'true'")
    plain = row[row["minus"] == "none"]["estimate"].item()
    assert plain == pytest.approx(means["true"] - means["none"], abs=1e-9)


def test_categories_divide_the_text(planted: Result) -> None:
    categories = planted.tables["categories"]
    plain = categories[(categories["source"] == "true") & (categories["minus"] == "none")]
    counts = plain.groupby("division")["count"].sum()
    # Every prediction but the first of each document has a token before it.
    assert counts["surprisal of the token before"] == counts["last surprise"]
    assert counts["copyable and other tokens"] == counts["last surprise"] + 8
    words = plain[plain["division"] == "kind of word"].set_index("category")["count"]
    assert words["common"] + words["rare"] == 8
    high = plain[plain["category"].isin(["6 to 8", "8 and more"])]["count"].sum()
    assert high == plain[plain["category"] == "right after a surprise"]["count"].item() > 0


def test_the_lens_finds_the_word_no_earlier_than_it_is_copied(planted: Result) -> None:
    first = planted.tables["lens_first"]
    everything = first[(first["words"] == "all") & (first["minus"] == "none")].iloc[0]
    # Points 0 and 1 hold the current token and the belief; copies are made in block 1.
    assert 2 <= everything["mean"] <= everything["unpatched"] <= 3
    lens = planted.tables["lens"]
    shares = lens[(lens["words"] == "all") & (lens["role"] == "true")].set_index("point")["share"]
    assert shares.index.tolist() == [0, 1, 2]
    assert shares[0] == shares[1] == 0


def test_figures_have_all_data(planted: Result) -> None:
    figures = planted.figures()
    assert set(figures) >= {"sources", "surprisal", "copyable", "words", "depth", "lens"}
    assert len(figures["sources"].data) == 5
    assert all(finding.figure in figures for finding in planted.verdicts)


def test_random_tokens_are_said_twice() -> None:
    bridge = shared_bridge("llama")
    sequences = induction_sequences(bridge, SETTINGS)
    assert [s.half for s in sequences] == ["selection"] * 8 + ["report"] * 12
    special = set(bridge.tokenizer.all_special_ids)
    for sequence in sequences:
        bos, *rest = sequence.tokens
        assert bos == bridge.tokenizer.bos_token_id
        assert rest[:16] == rest[16:]
        assert len(set(rest)) == 16
        assert not special & set(rest)
    assert len({s.tokens for s in sequences}) == 20
    assert sequences == induction_sequences(bridge, SETTINGS)
    assert sequences != induction_sequences(bridge, replace(SETTINGS, seed=1))


def test_templates_end_with_the_word_and_share_no_frame_between_halves() -> None:
    bridge = shared_bridge("llama")
    sequences = template_sequences(bridge, replace(SETTINGS, template_words=(2, 4)))
    items = materials.templates()
    for sequence in sequences:
        item = items[sequence.number]
        whole = bridge.tokenizer.decode(sequence.tokens[1:])
        assert whole == f"{item.prefix} {item.word}"
        word = bridge.tokenizer.decode(sequence.tokens[-sequence.copied :])
        assert word == f" {item.word}"
        assert sequence.cluster == item.word
        assert {item.frequency, item.distance} <= set(sequence.tags.split())
    frames = {
        half: {items[s.number].frame for s in sequences if s.half == half}
        for half in ("selection", "report")
    }
    assert frames["selection"].isdisjoint(frames["report"])
    assert len(frames["selection"]) == len(frames["report"]) == 2
    counts = pd.Series([s.half for s in sequences]).value_counts()
    assert counts["selection"] == 2 * 2 * 2  # frames, frequencies, words
    assert counts["report"] == 2 * 2 * 4


def test_documents_go_to_one_half_each(tmp_path: Path) -> None:
    bridge = shared_bridge("llama")
    (tmp_path / "mine.txt").write_text("\n\n".join(f"the time of fox {n}" for n in "abcdefg"))
    mine = str(tmp_path / "mine.txt")
    chosen = replace(SETTINGS, texts=(mine, "prose"), documents=(2, 3), document_tokens=9)
    sequences = text_sequences(bridge, chosen)
    halves: dict[str, set[str]] = {"selection": set(), "report": set()}
    for sequence in sequences:
        halves[sequence.half].add(sequence.cluster)
        assert len(sequence.tokens) <= 9
        assert sequence.tokens[0] == bridge.tokenizer.bos_token_id
    assert halves["selection"].isdisjoint(halves["report"])
    assert [len(halves["selection"]), len(halves["report"])] == [4, 6]
    assert sum(cluster.startswith(mine) for cluster in halves["report"]) == 3
    assert len({s.number for s in sequences}) == len(sequences)


def test_a_text_that_is_there_twice_is_on_one_half_only(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("\n\n".join(f"the time of fox {n}" for n in "aabbccdd"))
    chosen = replace(SETTINGS, texts=(str(tmp_path / "mine.txt"),), documents=(9, 9))
    sequences = text_sequences(shared_bridge("llama"), chosen)
    assert len({s.tokens for s in sequences}) == len(sequences) == 4


def test_one_document_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the quick brown fox")
    settings = replace(SETTINGS, texts=(str(tmp_path / "one.txt"),))
    with pytest.raises(ValueError, match="nothing for text on the report half"):
        copying(planted_bridge, settings=settings)


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
def test_presets_survive_json_and_fit_the_model(preset: str, n_layers: int) -> None:
    settings = CopyingSettings.preset(preset, n_layers)
    assert from_values(CopyingSettings, to_values(settings)) == settings
    assert all(0 <= layer < n_layers for layer in settings.layers)
    assert len(set(settings.layers)) == len(settings.layers) >= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "at least one layer"),
        ({"documents": (0, 3)}, "documents must be two numbers"),
        ({"surprising": 5.0}, "surprising must be one of the edges"),
        ({"recent": 0}, "recent 1; got"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)
