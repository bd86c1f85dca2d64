"""The copying experiment: planted effects and nulls, its measures, its halves, its settings."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions import logit_lens, materials
from lens_interventions.experiments import CopyingSettings, Result, copying
from lens_interventions.experiments.conditions import NO_PATCH, Arm, Cell, PatchSettings
from lens_interventions.experiments.contrasts import (
    Measure,
    Resampling,
    contrast,
    most_specific,
    shortlist,
    totals_of,
)
from lens_interventions.experiments.copying.measures import (
    measure_induction,
    measure_lens,
    measure_templates,
    measure_text,
)
from lens_interventions.experiments.copying.sequences import (
    TokenSequence,
    induction_sequences,
    template_sequences,
    text_sequences,
)
from lens_interventions.experiments.settings import from_values, to_values
from lens_interventions.patch_site import PatchSite
from lens_interventions.sources import SOURCES
from tests.exact import float64_softmax
from tests.planted import faint_bridge, planted_bridge
from tests.tiny import shared_bridge

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


# One group, near copies: the planted model reads letters, and is slow on long texts.
FEW = tuple(t for t in materials.templates() if t.group == "idea" and t.distance == "near")


@pytest.fixture(autouse=True)
def _few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materials, "templates", lambda: FEW)


def outcomes(result: Result) -> dict[str, str]:
    questions = result.to_dataframe()["question"].unique()
    return {q: f.verdict.outcome for q, f in zip(questions, result.verdicts, strict=True)}


@pytest.fixture(scope="module")
def planted() -> Result:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(materials, "templates", lambda: FEW)
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

    monkeypatch.setitem(SOURCES, "true", another_random_token)
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


# --- the measures, against step-by-step computation -------------------------------------------

PATCH = PatchSettings()
ARMS = (
    NO_PATCH,
    Arm("true", 1, 0.3, "add"),
    Arm("shuffled", 1, 0.5, "interpolate"),
    Arm("direction", 2, 0.5, "add"),
)


def step_by_step(bridge: TransformerBridge, tokens: Sequence[int], arm: Arm, seed: int) -> Tensor:
    """Log-probs `[next, d_vocab]`, each from a run of its own with plain hooks on the prefix."""
    rows = []
    for end in range(1, len(tokens)):
        prefix = torch.tensor([tokens[:end]])
        patch = PATCH.patch(arm, len(tokens))
        hooks = patch.fwd_hooks(bridge, prefix, text_seeds=torch.tensor([seed])) if patch else []
        with bridge.hooks(fwd_hooks=hooks):
            rows.append(bridge(prefix)[0, -1].log_softmax(-1))
    return torch.stack(rows)


def text(number: int, tokens: Sequence[int], copied: int = 0, tags: str = "t") -> TokenSequence:
    return TokenSequence(number, "report", f"c{number}", tags, tuple(tokens), copied)


def parameters(texts: Sequence[TokenSequence], arms: Sequence[Arm] = ARMS) -> dict:
    return {
        "sequences": [item.values() for item in texts],
        "arms": [arm.columns() for arm in arms],
        "patch": asdict(PATCH),
    }


def total(rows: pd.DataFrame, arm: Arm, sequence: int, measure: str, tag: str = "") -> float:
    chosen = rows[(rows["sequence"] == sequence) & (rows["measure"] == measure)]
    for name, value in arm.columns().items():
        chosen = chosen[chosen[name] == value]
    chosen = chosen[[tag in category.split() or not tag for category in chosen["category"]]]
    return float(chosen["total"].item())


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_induction_is_the_second_copy_step_by_step(arch: str) -> None:
    bridge = shared_bridge(arch)
    said = [[9, 40, 7, 21, 33], [50, 51, 8, 90, 10]]
    texts = [text(n, [0, *half, *half], copied=5) for n, half in enumerate(said)]
    with torch.no_grad(), float64_softmax():
        rows = measure_induction(bridge, **parameters(texts))
        for item in texts:
            for arm in ARMS:
                log_probs = step_by_step(bridge, item.tokens, arm, item.number)
                targets = torch.tensor(item.tokens[7:])  # without the first token said again
                second = log_probs[6:]
                loss = -second.gather(1, targets[:, None]).sum()
                top1 = (second.argmax(-1) == targets).sum()
                assert total(rows, arm, item.number, "loss") == pytest.approx(float(loss), abs=1e-9)
                assert total(rows, arm, item.number, "top1") == float(top1)
    assert (rows["count"] == 4).all()


@pytest.mark.parametrize("ranks", [True, False])
def test_templates_score_the_word_step_by_step(ranks: bool) -> None:
    bridge = shared_bridge("llama")
    # Unequal lengths and words of 2 tokens and 1: the shorter text is padded.
    texts = [text(3, [0, 9, 8, 7, 60, 61], copied=2), text(5, [0, 30, 31], copied=1)]
    with torch.no_grad(), float64_softmax():
        rows = measure_templates(bridge, **parameters(texts), ranks=ranks)
        for item in texts:
            for arm in ARMS:
                log_probs = step_by_step(bridge, item.tokens, arm, item.number)
                first = len(item.tokens) - 1 - item.copied
                word = item.tokens[first + 1 :]
                said = sum(log_probs[first + i, token] for i, token in enumerate(word))
                assert total(rows, arm, item.number, "log_prob") == pytest.approx(
                    float(said), abs=1e-9
                )
                if ranks:
                    rank = int((log_probs[first] > log_probs[first, word[0]]).sum())
                    assert total(rows, arm, item.number, "rank") == rank
                    assert total(rows, arm, item.number, "top1") == float(rank == 0)
                    assert total(rows, arm, item.number, "log_rank") == pytest.approx(
                        np.log1p(rank), abs=1e-12
                    )
    assert set(rows["measure"]) == (
        {"log_prob", "rank", "log_rank", "top1"} if ranks else {"log_prob"}
    )


def test_text_is_divided_by_what_came_before() -> None:
    bridge = shared_bridge("llama")
    tokens = [0, 5, 6, 7, 5, 6, 9, 5, 6, 7, 20]
    edges = [3.0, 5.0, 7.0]
    texts = [text(0, tokens), text(1, tokens[:4])]
    with torch.no_grad(), float64_softmax():
        rows = measure_text(bridge, **parameters(texts), edges=edges, surprising=5.0, recent=2)
        clean = step_by_step(bridge, tokens, NO_PATCH, 0)
        patched = step_by_step(bridge, tokens, ARMS[1], 0)
    surprisal = [float("nan")] + [-float(clean[i - 1, tokens[i]]) for i in range(1, 11)]
    loss = [-float(patched[i, tokens[i + 1]]) for i in range(10)]
    # (5, 6) comes again at positions 4 and 7, (6, 7) at 8; nothing else was seen before.
    copied = {4, 7, 8}
    surprised = {i for i in range(1, 10) if surprisal[i] >= 5}
    assert surprised, "the test needs a surprising token"
    expected = {
        "copyable": copied,
        "other": set(range(10)) - copied,
        "bin-0": {i for i in range(1, 10) if surprisal[i] < 3},
        "bin-1": {i for i in range(1, 10) if 3 <= surprisal[i] < 5},
        "bin-2": {i for i in range(1, 10) if 5 <= surprisal[i] < 7},
        "bin-3": {i for i in range(1, 10) if surprisal[i] >= 7},
        "surprise-now": surprised,
        "surprise-recent": {i for i in range(2, 10) if i - 1 in surprised} - surprised,
        "surprise-none": {i for i in range(1, 10) if i not in surprised and i - 1 not in surprised},
    }
    for tag, where in expected.items():
        assert total(rows, ARMS[1], 0, "loss", tag) == pytest.approx(
            sum(loss[i] for i in where), abs=1e-9
        ), tag
        chosen = rows[(rows["sequence"] == 0) & rows["category"].str.endswith(tag)]
        assert set(chosen["count"]) == {len(where)}, tag
    # The second text is the beginning of the first: a causal model gives it the same losses.
    assert total(rows, ARMS[1], 1, "loss", "other") == pytest.approx(sum(loss[:3]), abs=1e-9)


def test_the_model_without_a_patch_divides_even_where_it_is_not_reported() -> None:
    bridge = shared_bridge("llama")
    texts = [text(0, [0, 5, 6, 7, 5, 6, 9])]
    options = {"edges": [3.0, 5.0], "surprising": 5.0, "recent": 2}
    with torch.no_grad(), float64_softmax():
        both = measure_text(bridge, **parameters(texts), **options)
        alone = measure_text(bridge, **parameters(texts, ARMS[1:]), **options)
    without = both[both["source"] != "none"].set_index(["source", "category"])["total"]
    # A batch of three arms rounds its float64 sums otherwise than one of four.
    pd.testing.assert_series_equal(
        alone.set_index(["source", "category"])["total"].sort_index(),
        without.sort_index(),
        rtol=1e-9,
    )


def test_the_lens_is_read_where_the_word_is_due() -> None:
    bridge = shared_bridge("llama")
    prefixes = {0: [0, 9, 8, 7], 4: [0, 30, 31, 32, 33, 34]}  # the shorter one is padded
    arms = (NO_PATCH, Arm("true", 1, 0.5, "add"), Arm("random", 0, 0.5, "add"))
    guesses: dict[tuple[int, Arm], list[int]] = {}
    for number, prefix in prefixes.items():
        for arm in arms:
            patch = PATCH.patch(arm, 8)
            seeds = torch.tensor([number])
            hooks = patch.fwd_hooks(bridge, prefix, text_seeds=seeds) if patch else []
            with bridge.hooks(fwd_hooks=hooks):
                guesses[number, arm] = logit_lens(bridge, prefix).top_ids[:, 0, -1, 0].tolist()
    assert guesses[4, arms[0]] != guesses[4, arms[1]], "the patch must show in the lens"
    words = {number: guesses[number, NO_PATCH][2] for number in prefixes}
    texts = [text(n, [*prefix, words[n], 3], copied=2) for n, prefix in prefixes.items()]
    with torch.no_grad():
        rows = measure_lens(bridge, **parameters(texts, arms))
    for (number, arm), by_point in guesses.items():
        expected = [guess == words[number] for guess in by_point]
        top = [total(rows, arm, number, "lens_top", f"point-{p}") for p in range(len(by_point))]
        assert top == [float(value) for value in expected]
        first = expected.index(True) if any(expected) else len(expected)
        assert total(rows, arm, number, "lens_first") == first


# --- sequences ---------------------------------------------------------------------------------


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


def test_one_document_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the quick brown fox")
    settings = replace(SETTINGS, texts=(str(tmp_path / "one.txt"),))
    with pytest.raises(ValueError, match="nothing for text on the report half"):
        copying(planted_bridge, settings=settings)


# --- settings ----------------------------------------------------------------------------------


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


# --- contrasts ---------------------------------------------------------------------------------


def rows_of(values: dict[Arm, list[tuple[str, float, int]]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "half": "report",
                "sequence": n,
                "cluster": cluster,
                **arm.columns(),
                "measure": "loss",
                "category": "t copyable",
                "total": value,
                "count": count,
            }
            for arm, sequences in values.items()
            for n, (cluster, value, count) in enumerate(sequences)
        ]
    )


TRUE = Arm("true", 1, 0.1, "add")


def test_sequences_of_a_cluster_are_added_up() -> None:
    rows = rows_of(
        {
            NO_PATCH: [("a", 4.0, 2), ("a", 2.0, 1), ("b", 5.0, 5)],
            TRUE: [("a", 3.0, 2), ("a", 2.0, 1), ("b", 0.0, 5)],
        }
    )
    totals = totals_of(rows, Measure("loss", frozenset({"copyable"})), "report")
    assert totals.counts.tolist() == [3, 5]
    assert totals.of(TRUE).tolist() == [5, 0]
    assert totals.mean(NO_PATCH) == 11 / 8
    compared = contrast(totals, TRUE, NO_PATCH, Resampling(n_resamples=99))
    assert compared.interval.estimate == -6 / 8
    assert compared.interval.n == 2
    # Differences -1 and -5: of the four ways to sign them two have a sum of 6 or more either way.
    assert compared.p_value == 0.5


def test_arms_measured_on_different_tokens_are_refused() -> None:
    rows = rows_of({NO_PATCH: [("a", 4.0, 2), ("b", 5.0, 5)], TRUE: [("a", 3.0, 2)]})
    with pytest.raises(ValueError, match="not measured on the same loss"):
        totals_of(rows, Measure("loss"), "report")


def test_a_measure_without_rows_is_refused() -> None:
    rows = rows_of({NO_PATCH: [("a", 4.0, 2)]})
    with pytest.raises(ValueError, match=r"no rows of loss \['rare'\] on the report half"):
        totals_of(rows, Measure("loss", frozenset({"rare"})), "report")


def test_the_shortlist_has_one_cell_of_each_layer_and_the_most_specific_wins() -> None:
    true = {(1, 0.1): 1.0, (1, 0.3): 1.1, (2, 0.1): 2.0, (2, 0.3): 1.9, (3, 0.1): 3.0}
    cells = {key: Cell(*key, "add") for key in true}
    values = {NO_PATCH: [("a", 4.0, 1), ("b", 4.0, 1)]}
    values |= {Arm.at(cells[k]): [("a", v, 1), ("b", v, 1)] for k, v in true.items()}
    # At (1, 0.1) a control is as good as the true token, at (2, 0.3) none is.
    for key, best in (((1, 0.1), 1.0), ((2, 0.3), 3.5)):
        for place, control in enumerate(sorted(CONTROLS)):
            v = best + place
            values[Arm.at(cells[key], control)] = [("a", v, 1), ("b", v, 1)]
    totals = totals_of(rows_of(values), Measure("loss"), "report")
    short = shortlist(totals, 2, lower_is_better=True)
    assert short == [cells[1, 0.1], cells[2, 0.3]]
    assert most_specific(totals, short, lower_is_better=True) == cells[2, 0.3]
    assert shortlist(totals, 1, lower_is_better=False) == [cells[3, 0.1]]
