"""The experiment with learned writes: a planted case, its null, its stages, going on."""

import dataclasses
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor

import lens_interventions as li
from lens_interventions.experiments import (
    Result,
    RunDirectoryError,
    load_result,
    read_tables,
    trained_writes,
)
from lens_interventions.experiments.learned import stages as stages_module
from lens_interventions.experiments.learned.analysis import main_arm
from lens_interventions.experiments.learned.writes import Training
from lens_interventions.intervention.site import PatchSite
from lens_interventions.intervention.sources import SOURCES
from lens_interventions.intervention.training import loop as write_training
from lens_interventions.measures.verdicts import JOINT
from tests.support.planted_copying import ablated_bridge, key_value_texts
from tests.support.planted_learned import (
    SETTINGS,
    SHORT,
    WITHOUT_SWEEPS,
    planted_sequences,
    run,
)
from tests.support.processes import PROCESSES
from tests.support.stopped import assert_same_tables, counted, stopped

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """An unbroken run and its directory."""
    out = tmp_path_factory.mktemp("learned") / "run"
    return run(out=out), out


@pytest.fixture(scope="module")
def short() -> Result:
    """A run of all stages, each of them short."""
    return run(SHORT)


def headline(result: Result, question: str) -> pd.Series:
    """The row of the true source minus all its references."""
    rows = result.to_dataframe()
    return rows[(rows["question"] == question) & (rows["minus"] == JOINT)].iloc[0]


TRAINED = ("true", "current", "guess", "shuffled", "random", "zero")
IN_WORDS = {
    "current": "current token",
    "guess": "the layer's guess",
    "shuffled": "shuffled next token",
    "random": "random token",
    "zero": "no token",
}
QUESTIONS = ["keys", "after a surprise", "random copies", "rare words", "free copies", "loops"]


class TestPlanted:
    def test_the_true_token_is_learned_and_found(self, planted: tuple[Result, Path]) -> None:
        result, _ = planted
        assert list(result.to_dataframe()["question"].unique()) == QUESTIONS
        assert [finding.verdict.outcome for finding in result.verdicts][:5] == ["helps"] * 5
        for question in QUESTIONS[:4]:
            row = headline(result, question)
            assert row["source"] == "true"
            assert row["p_holm"] < 0.05
            assert row["n"] == 3  # seeds: both these and sequences are resampled
            assert row["method"] == "joint crossed t"
        # Half of the tokens are values, half of their keys came before: a quarter of some nats.
        assert headline(result, "keys")["estimate"] < -0.1

    def test_no_news_is_none_whatever_it_is_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def another_random_token(site: PatchSite) -> Tensor:
            return (site.draw_integers(len(site.embedding.weight)) + 5) % 16

        swapped = dataclasses.replace(SOURCES["true"], function=another_random_token)
        monkeypatch.setitem(SOURCES, "true", swapped)
        result = run(dataclasses.replace(WITHOUT_SWEEPS, seeds=(0,)))
        assert "helps" not in [finding.verdict.outcome for finding in result.verdicts]
        # Twelve texts on which nothing differs are too few to rule an effect out.
        assert result.verdicts[0].verdict.interval.estimate == 0
        assert result.verdicts[0].verdict.outcome == "undecided"
        assert headline(result, "random copies")["p_value"] > 0.05

    def test_every_source_is_reported(self, planted: tuple[Result, Path]) -> None:
        result, _ = planted
        for question, rows in result.to_dataframe().groupby("question"):
            assert rows[rows["minus"] == "none"]["source"].tolist() == list(TRAINED), question
            against = rows[rows["minus"] != "none"]
            assert set(against["source"]) == {"true"}
            assert against["minus"].tolist() == [JOINT, *TRAINED[1:]]
            true = rows[rows["source"] == "true"].set_index("minus")
            plain = true.loc["none"]
            assert plain["estimate"] == pytest.approx(plain["mean"] - plain["unpatched"], abs=1e-9)

    def test_a_reader_recomputes_a_number_from_the_kept_rows(
        self, planted: tuple[Result, Path]
    ) -> None:
        result, _ = planted
        rows = result.tables["rows"].query("table == 'induction' and measure == 'loss'")
        arm = main_arm(SETTINGS)  # the sweeps have other layers, ranks and steps
        rows = rows[(rows["layer"] == arm.layer) & (rows["mode"] == arm.mode)]
        sums = rows.groupby(["source", "seed"])[["total", "count"]].sum()
        means = (sums["total"] / sums["count"]).groupby("source").mean()
        found = result.to_dataframe().set_index(["question", "source", "minus"])
        by_hand = means["true"] - means["current"]
        row = found.loc[("random copies", "true", "current")]
        assert row["estimate"] == pytest.approx(by_hand, abs=1e-9)

    def test_numbers_are_those_of_teacher_forcing(self, planted: tuple[Result, Path]) -> None:
        """True minus a control, by hand: means over tokens, then over seeds."""
        result, out = planted
        rows = result.to_dataframe()
        row = rows[(rows["question"] == "keys") & (rows["minus"] == "current")].iloc[0]
        bridge, writes = ablated_bridge(), trained_writes(out)
        texts = [t for t in planted_sequences(bridge, SETTINGS)["text"] if t.half == "report"]
        tokens, seeds = (
            torch.tensor([t.tokens for t in texts]),
            torch.tensor([t.number for t in texts]),
        )
        losses = {
            source: sum(
                -li.teacher_forced_log_probs(
                    bridge,
                    tokens,
                    writes[Training(source, 1, 16, 20, seed)].patch(seed=seed),
                    text_seeds=seeds,
                ).mean()
                / len(SETTINGS.seeds)
                for seed in SETTINGS.seeds
            )
            for source in ("true", row["minus"])
        }
        expected = float(losses["true"] - losses[row["minus"]])
        # Attention of GPT-2 is cast to float32 here, and other batches sum in another order.
        assert row["estimate"] == pytest.approx(expected, abs=1e-6)

    def test_free_copies_are_those_of_generate(self, planted: tuple[Result, Path]) -> None:
        """By hand: of the second half of the second copy, what the true write gets right."""
        result, out = planted
        row = headline(result, "free copies")
        bridge, writes = ablated_bridge(), trained_writes(out)
        texts = [t for t in planted_sequences(bridge, SETTINGS)["induction"] if t.half == "report"]
        right = []
        for seed in SETTINGS.seeds:
            patch = writes[Training("true", 1, 16, 20, seed)].patch(seed=seed)
            for text in texts[:6]:
                said = li.generate(bridge, [list(text.tokens[:16])], patch, max_new_tokens=5)
                right += [a == b for a, b in zip(said.tokens[0], text.tokens[16:], strict=True)]
        assert row["mean"] == pytest.approx(sum(right) / len(right))
        assert row["estimate"] > 0.1
        assert row["p_value"] < 0.05

    def test_samples_are_kept_for_a_reader(self, planted: tuple[Result, Path]) -> None:
        shown = planted[0].tables["samples"]
        for _, of_prompt in shown.groupby("prompt_number"):
            assert len(of_prompt) == 3
            assert of_prompt["condition"].nunique() == 3
        assert shown["prompt_number"].nunique() == 6

    def test_the_mean_over_seeds_is_that_of_the_seeds(self, planted: tuple[Result, Path]) -> None:
        result, _ = planted
        seeds, contrasts = result.tables["seeds"], result.to_dataframe()
        true_alone = (contrasts["source"] == "true") & (contrasts["minus"] == "none")
        for question in QUESTIONS:
            rows = seeds[(seeds["question"] == question) & (seeds["minus"] == "none")]
            assert tuple(rows["seed"]) == SETTINGS.seeds
            over_both = contrasts[(contrasts["question"] == question) & true_alone]
            mean = rows["estimate"].mean()
            assert over_both["estimate"].item() == pytest.approx(mean, abs=1e-9)

    def test_all_are_trained_alike(self, planted: tuple[Result, Path]) -> None:
        curves = planted[0].tables["curves"]
        main = curves[(curves["steps"] == 20) & (curves["kind"] == "step")]
        for seed in (0, 1):
            of_seed = main[main["seed"] == seed]
            clean = of_seed.pivot(index="step", columns="source", values="clean_loss")
            assert set(clean.columns) == set(TRAINED)
            assert len(clean) == 20
            assert (clean.nunique(axis=1) == 1).all()
        first, second = (main[main["seed"] == s]["clean_loss"].to_numpy() for s in (0, 1))
        assert (first != second).any()

    def test_sweeps_choose_on_one_half_and_report_on_the_other(
        self, planted: tuple[Result, Path]
    ) -> None:
        tables = planted[0].tables
        layers, ranks, best = (tables[name] for name in ("layers", "ranks", "best"))
        assert set(layers["half"]) == set(ranks["half"]) == {"selection"}
        assert set(best["half"]) == {"report"}
        copies = layers[(layers["material"] == "random copies") & (layers["minus"] == "current")]
        by_layer = copies.set_index("layer")["estimate"]
        # At layer 0 the write is turned into a note of another token by the block above.
        assert by_layer[1] < by_layer[0]
        assert set(ranks["layer"]) == {1}
        assert sorted(ranks["rank"].unique()) == [1, 16]
        chosen = ranks[(ranks["material"] == "random copies") & (ranks["minus"] == "current")]
        assert set(best["rank"]) == {chosen.loc[chosen["estimate"].idxmin(), "rank"]}
        assert set(best["steps"]) == {8}

    def test_the_reading_finds_what_was_planted(self, planted: tuple[Result, Path]) -> None:
        tables = planted[0].tables
        geometry = tables["geometry"].groupby("quantity")["value"].mean()
        # Copying asks for a code of the token in the place where embeddings live.
        assert geometry["cosine of what is written to the token's embedding"] > 0.4
        ablation = tables["ablation"].set_index(["condition", "minus"])["estimate"]
        everywhere = ablation["everywhere", "none"]
        assert everywhere < -0.2
        assert abs(ablation["not at matched tokens", "none"]) < 0.5 * abs(everywhere)
        assert abs(ablation["not at as many others", "everywhere"]) < 0.5 * abs(everywhere)
        attention = tables["attention"]
        earlier = attention[attention["kind"] == "earlier occurrence"].iloc[0]
        assert earlier["clean"] > 0.9
        assert set(tables["directions"]["seed"]) == {0, 1, 2}

    def test_figures_have_all_data(self, planted: tuple[Result, Path]) -> None:
        result, out = planted
        figures = result.figures()
        assert list(figures) == [
            *("materials", "curves", "surprisal", "layers", "ranks"),
            *("ablation", "directions", "attention"),
        ]
        assert len(figures["materials"].data) == len(QUESTIONS)
        for trace in figures["materials"].data:
            controls = [IN_WORDS[control] for control in TRAINED[1:]]
            assert list(trace.y) == [
                *(f"true − {minus}" for minus in (JOINT, "no patch", *controls)),
                *(f"{control} − no patch" for control in controls),
            ]
        # A log-probability that rises is drawn as a loss that falls.
        words = figures["materials"].data[QUESTIONS.index("rare words")]
        assert words.x[0] == pytest.approx(-headline(result, "rare words")["estimate"])
        assert words.error_x.array[0] >= 0
        names = [trace.name for trace in figures["curves"].data if trace.name in TRAINED]
        assert set(names) == set(TRAINED)
        assert all(finding.figure in figures for finding in result.verdicts)
        page = li.report(out, out=out.parent / "page.html").read_text(encoding="utf-8")
        assert "Does it help to copy random tokens said before?" in page

    def test_the_method_says_how(self, planted: tuple[Result, Path]) -> None:
        method = planted[0].verdicts[0].method
        for part in (
            "rank 16 at layer 1",
            "20 steps",
            "3 seeds",
            "Clusters and seeds are resampled",
            "80% power",
        ):
            assert part in method


def assert_same(one: Result, other: Result) -> None:
    assert_same_tables(one, other)
    assert repr(one.verdicts) == repr(other.verdicts)


class TestGoingOn:
    def test_a_run_that_was_stopped_ends_in_the_same_tables(
        self, short: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        with stopped(write_training.WriteTraining, "_step", call=11):  # within the third training
            run(SHORT, out=out)
        assert len(list((out / "rows" / "training").iterdir())) == 2
        kept = {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.parquet")}
        with counted(write_training.WriteTraining, "_step") as steps:
            assert_same(run(SHORT, out=out), short)
        assert (
            kept.items()
            <= {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.parquet")}.items()
        )
        # Two trainings were not made again, and of the third two of four steps.
        sweeps = 4 + 4 - 2  # of the ranks at the best layer two are among the layers
        assert len(steps) == 4 * 4 - 2 + 2 * sweeps
        monkeypatch.setattr(write_training.WriteTraining, "_step", None)  # nothing is left to do
        assert_same(run(SHORT, out=out), short)
        loaded = load_result(out)
        assert repr(loaded.verdicts) == repr(short.verdicts)

    def test_other_processes_measure_the_same(self, short: Result) -> None:
        with ProcessPoolExecutor(1, mp_context=PROCESSES) as executor:
            result = run(SHORT, executor=executor)
        for name, table in short.tables.items():
            # Other numbers of threads may sum in another order, and training repeats it.
            assert_frame_equal(result.tables[name], table, rtol=1e-6, atol=1e-6)

    def test_the_writes_are_there_to_be_used(self, planted: tuple[Result, Path]) -> None:
        writes = trained_writes(planted[1])
        assert {t.source for t in writes if t.steps == 20} == set(TRAINED)
        assert {t.seed for t in writes if t.steps == 20} == {0, 1, 2}
        write = writes[Training("true", 1, 16, 20, 1)]
        assert write.settings["steps"] == 20
        assert write.settings["seed"] == 1
        tokens = key_value_texts(1, seed=7)[0][None]
        (change,) = (
            li.teacher_forced_log_probs(ablated_bridge(), tokens, write.patch())
            - li.teacher_forced_log_probs(ablated_bridge(), tokens, None)
        ).mean(-1)
        assert change > 0.05

    def test_a_directory_without_writes(self, tmp_path: Path) -> None:
        with pytest.raises(RunDirectoryError, match="is not a run directory"):
            trained_writes(tmp_path)


@pytest.mark.parametrize(
    "twice",
    [{"sweep_layers": (1, 1)}, {"sweep_ranks": (2, 2)}, {"sweep_controls": ("random",) * 2}],
)
def test_a_sweep_that_names_a_value_twice_is_refused(twice: dict[str, Any]) -> None:
    (name,) = twice
    with pytest.raises(ValueError, match=f"{name} must be different values"):
        dataclasses.replace(SHORT, **twice)


def test_a_model_that_hides_its_attention_is_read_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages_module, "shows_attention", lambda *_: False)
    few = dataclasses.replace(SHORT, sweep_layers=(), sweep_ranks=(), steps=2)
    with pytest.warns(UserWarning, match="does not show its attention"):
        result = run(few)
    assert "attention" not in result.tables
    assert "attention" not in result.figures()
    assert "ablation" in result.figures()


def test_rows_of_a_run_can_be_read_before_it_is_finished(planted: tuple[Result, Path]) -> None:
    rows = read_tables(planted[1])
    assert {"training", "induction", "templates", "text", "ablation"} <= set(rows)
    kinds = rows["training"].groupby(["source", "layer", "rank", "steps", "seed"])["kind"]
    assert all(set(kind) == {"step", "held-out", "write"} for _, kind in kinds)
