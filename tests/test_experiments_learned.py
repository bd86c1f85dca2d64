"""The experiment with learned writes: a planted case, its null, its stages, going on, its texts."""

import dataclasses
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from lens_interventions import materials, sources, write_training
from lens_interventions.experiments import (
    CopyingSettings,
    LearnedSettings,
    Result,
    RunDirectoryError,
    learned,
    load_result,
    read_tables,
    trained_writes,
)
from lens_interventions.experiments.conditions import NO_PATCH
from lens_interventions.experiments.contrasts import Resampling
from lens_interventions.experiments.copying.sequences import TokenSequence, induction_sequences
from lens_interventions.experiments.learned import sampled
from lens_interventions.experiments.learned import stages as stages_module
from lens_interventions.experiments.learned.settings import SOURCES
from lens_interventions.experiments.learned.texts import (
    measured_sequences,
    python_code,
    training_texts,
)
from lens_interventions.experiments.learned.units import NO_SEED, measure_writes, over_seeds
from lens_interventions.experiments.learned.writes import (
    Training,
    read_write,
    write_bytes,
    write_text,
)
from lens_interventions.experiments.settings import from_values, to_values
from lens_interventions.patch_site import PatchSite
from tests.planted_copying import N_CTX, ablated_bridge, key_value_texts
from tests.test_learned_write import random_write
from tests.test_patch_training import assert_same_bits
from tests.tiny import shared_bridge

SETTINGS = LearnedSettings(
    layer=1,
    rank=16,
    seeds=(0, 1),
    steps=20,
    options=li.TrainingOptions(
        window=N_CTX,
        batch_size=8,
        evaluate_every=10,
        learning_rate=0.03,
        patience=None,
        held_out_windows=30,
    ),
    material=CopyingSettings(
        layers=(0,),
        strengths=(1.0,),
        induction_sequences=(6, 12),
        induction_length=10,
        texts=("keys",),
        surprisal_edges=(1.0, 2.0),
        surprising=2.0,
        batch=12,
        resampling=Resampling(n_resamples=999),
    ),
    sweep_layers=(0, 1),
    sweep_ranks=(1, 16),
    sweep_steps=8,
    sampled_prompts=12,
    sampled_tokens=20,
    sampled_copies=6,
    read_sequences=3,
    directions=3,
)
WITHOUT_SWEEPS = dataclasses.replace(SETTINGS, sweep_layers=(), sweep_ranks=())


def model() -> TransformerBridge:
    """For other processes, which find it by name."""
    return ablated_bridge()


def planted_sequences(
    bridge: TransformerBridge, settings: LearnedSettings
) -> dict[str, list[TokenSequence]]:
    """Texts of 16 tokens, which no tokenizer makes: keys with their values, and words for them."""
    texts, words = key_value_texts(24, seed=5), []
    for tokens in key_value_texts(24, seed=6):
        ids = tokens.tolist()
        # A key that came before, and its value once more: the word that is due.
        words.append([*ids[:20], ids[6], ids[7]])
    half = ("selection", "report")
    return {
        "induction": induction_sequences(bridge, settings.material),
        "text": [
            TokenSequence(n, half[n % 2], f"keys: {n}", "keys", tuple(text.tolist()), 0)
            for n, text in enumerate(texts)
        ],
        "templates": [
            TokenSequence(n, half[n % 2], f"word {n}", "rare near single", tuple(ids), 1)
            for n, ids in enumerate(words)
        ],
    }


def planted_prompts(_bridge: TransformerBridge, n: int, _seed: int) -> list[dict]:
    """Beginnings of texts, half of them on each half."""
    return [
        {
            "number": number,
            "half": ("selection", "report")[number % 2],
            "register": "keys",
            "text": str(text[:12].tolist()),
            "tokens": text[:12].tolist(),
        }
        for number, text in enumerate(key_value_texts(n, seed=7))
    ]


def planted_training_texts(*_: object) -> list[list[int]]:
    return [text.tolist() for text in key_value_texts(300, seed=1)]


@contextmanager
def planted_texts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(stages_module, "measured_sequences", planted_sequences)
        monkeypatch.setattr(stages_module, "training_texts", planted_training_texts)
        monkeypatch.setattr(sampled, "prompt_items", planted_prompts)
        yield


def run(settings: LearnedSettings = SETTINGS, **options: object) -> Result:
    with planted_texts():
        return learned(model, settings=settings, **options)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """An unbroken run and its directory."""
    out = tmp_path_factory.mktemp("learned") / "run"
    return run(out=out), out


def headline(result: Result, question: str) -> pd.Series:
    """The row of the true source minus the best control."""
    rows = result.to_dataframe()
    return rows[(rows["question"] == question) & (rows["minus"] != "none")].iloc[0]


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
            assert row["n"] == 12
        # Half of the tokens are values, half of their keys came before: a quarter of some nats.
        assert headline(result, "keys")["estimate"] < -0.1

    def test_no_news_is_none_whatever_it_is_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def another_random_token(site: PatchSite) -> Tensor:
            return (site.draw_integers(len(site.embedding.weight)) + 5) % 16

        monkeypatch.setitem(sources.SOURCES, "true", another_random_token)
        result = run(dataclasses.replace(WITHOUT_SWEEPS, seeds=(0,)))
        assert "helps" not in [finding.verdict.outcome for finding in result.verdicts]
        assert result.verdicts[0].verdict.outcome == "no effect"
        assert headline(result, "random copies")["p_value"] > 0.05

    def test_every_source_is_reported(self, planted: tuple[Result, Path]) -> None:
        result, _ = planted
        for question, rows in result.to_dataframe().groupby("question"):
            assert rows[rows["minus"] == "none"]["source"].tolist() == list(SOURCES), question
            assert rows[rows["minus"] != "none"]["source"].tolist() == ["true"]
            true = rows[rows["source"] == "true"].set_index("minus")
            plain = true.loc["none"]
            assert plain["estimate"] == pytest.approx(plain["mean"] - plain["unpatched"], abs=1e-9)

    def test_numbers_are_those_of_teacher_forcing(self, planted: tuple[Result, Path]) -> None:
        """True minus the chosen control, by hand: means over tokens, then over seeds."""
        result, out = planted
        row = headline(result, "keys")
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
                / 2
                for seed in (0, 1)
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
        for seed in (0, 1):
            patch = writes[Training("true", 1, 16, 20, seed)].patch(seed=seed)
            for text in texts[:6]:
                said = li.generate(bridge, [list(text.tokens[:16])], patch, max_new_tokens=5)
                right += [a == b for a, b in zip(said.tokens[0], text.tokens[16:], strict=True)]
        assert row["mean"] == pytest.approx(sum(right) / len(right))
        assert row["estimate"] > 0.1
        assert row["p_value"] < 0.05

    def test_samples_are_kept_for_a_reader(self, planted: tuple[Result, Path]) -> None:
        shown = planted[0].tables["samples"]
        control = headline(planted[0], "loops")["minus"]
        for _, of_prompt in shown.groupby("prompt_number"):
            assert len(of_prompt) == 3
            assert any(control in condition for condition in of_prompt["condition"])
        assert shown["prompt_number"].nunique() == 6

    def test_the_mean_over_seeds_is_that_of_the_seeds(self, planted: tuple[Result, Path]) -> None:
        result, _ = planted
        seeds = result.tables["seeds"]
        for question in QUESTIONS:
            rows = seeds[(seeds["question"] == question) & (seeds["minus"] != "none")]
            assert rows["seed"].tolist() == [0, 1]
            mean = rows["estimate"].mean()
            assert headline(result, question)["estimate"] == pytest.approx(mean, abs=1e-9)

    def test_all_are_trained_alike(self, planted: tuple[Result, Path]) -> None:
        curves = planted[0].tables["curves"]
        main = curves[(curves["steps"] == 20) & (curves["kind"] == "step")]
        for seed in (0, 1):
            of_seed = main[main["seed"] == seed]
            clean = of_seed.pivot(index="step", columns="source", values="clean_loss")
            assert set(clean.columns) == set(SOURCES)
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
        assert set(tables["directions"]["seed"]) == {0, 1}

    def test_figures_have_all_data(self, planted: tuple[Result, Path]) -> None:
        result, out = planted
        figures = result.figures()
        assert list(figures) == [
            *("materials", "curves", "surprisal", "layers", "ranks"),
            *("ablation", "directions", "attention"),
        ]
        assert len(figures["materials"].data) == len(QUESTIONS)
        for trace in figures["materials"].data:
            assert list(trace.y) == ["true − best control", *(f"{s} − no patch" for s in SOURCES)]
        # A log-probability that rises is drawn as a loss that falls.
        words = figures["materials"].data[QUESTIONS.index("rare words")]
        assert words.x[0] == pytest.approx(-headline(result, "rare words")["estimate"])
        assert words.error_x.array[0] >= 0
        names = [trace.name for trace in figures["curves"].data if trace.name in SOURCES]
        assert set(names) == set(SOURCES)
        assert all(finding.figure in figures for finding in result.verdicts)
        page = li.report(out, out=out.parent / "page.html").read_text(encoding="utf-8")
        assert "Does it help to copy random tokens said before?" in page

    def test_the_method_says_how(self, planted: tuple[Result, Path]) -> None:
        method = planted[0].verdicts[0].method
        for part in ("rank 16 at layer 1", "20 steps", "2 seeds", "mean over the seeds", "Holm"):
            assert part in method


def assert_same(one: Result, other: Result) -> None:
    assert list(one.tables) == list(other.tables)
    for name, table in one.tables.items():
        assert_frame_equal(table, other.tables[name], check_exact=True)
    assert repr(one.verdicts) == repr(other.verdicts)


class TestGoingOn:
    def test_a_run_that_was_stopped_ends_in_the_same_tables(
        self, planted: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        step, made = write_training.WriteTraining._step, []

        def stops(self: write_training.WriteTraining) -> None:
            made.append(1)
            if len(made) == 50:  # in the middle of the third training
                raise KeyboardInterrupt
            step(self)

        monkeypatch.setattr(write_training.WriteTraining, "_step", stops)
        with pytest.raises(KeyboardInterrupt):
            run(out=out)
        assert len(list((out / "rows" / "training").iterdir())) == 2
        kept = {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.parquet")}
        assert_same(run(out=out), planted[0])
        assert (
            kept.items()
            <= {file: file.stat().st_mtime_ns for file in (out / "rows").rglob("*.parquet")}.items()
        )
        # The steps of two trainings were not made again, those of the third were.
        trainings = 12 + 4 + 4 - 2  # of the ranks at the best layer two are among the layers
        assert len(made) == 50 + 20 * 10 + 8 * (trainings - 12)
        monkeypatch.setattr(write_training.WriteTraining, "_step", None)  # nothing is left to do
        assert_same(run(out=out), planted[0])
        loaded = load_result(out)
        assert repr(loaded.verdicts) == repr(planted[0].verdicts)

    def test_other_processes_measure_the_same(self, planted: tuple[Result, Path]) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            result = run(executor=executor)
        for name, table in planted[0].tables.items():
            # Other numbers of threads may sum in another order, and training repeats it.
            assert_frame_equal(result.tables[name], table, rtol=1e-6, atol=1e-6)

    def test_the_writes_are_there_to_be_used(self, planted: tuple[Result, Path]) -> None:
        writes = trained_writes(planted[1])
        assert {t.source for t in writes if t.steps == 20} == set(SOURCES)
        assert {t.seed for t in writes if t.steps == 20} == {0, 1}
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


class TestUnits:
    def test_a_write_comes_back_from_its_bytes(self) -> None:
        write = random_write(shared_bridge("llama"), layers=(0, 2), gate=True)
        back = read_write(write_bytes(write))
        assert back.settings == write.settings
        for name in ("down", "up", "bias", "gate_weight", "gate_bias"):
            torch.testing.assert_close(
                getattr(back, name), getattr(write, name).float(), rtol=0, atol=0
            )
        assert write_bytes(write) == write_bytes(write)
        assert_same_bits(read_write(write_bytes(back)), back)

    @pytest.mark.parametrize("rank", [None, 8])
    def test_a_training_comes_back_from_its_columns(self, rank: int | None) -> None:
        training = Training("guess", 3, rank, 40, 2)
        assert Training.from_columns(training.columns()) == training
        assert training.own_arm != dataclasses.replace(training, seed=1).own_arm
        assert training.arm == dataclasses.replace(training, seed=1).arm

    def test_rows_are_of_each_write_and_averaged_over_seeds(self) -> None:
        bridge = shared_bridge("llama")
        texts = [TokenSequence(0, "report", "c", "t", (0, 50, 61, 52, 50, 61, 52), 3)]
        trainings = [Training("random", 1, 5, 1, seed) for seed in (4, 9)]
        writes = [random_write(bridge, source="random", trained_with="random") for _ in trainings]
        parameters = {
            t.name: {**t.columns(), "write": write_text(write_bytes(w))}
            for t, w in zip(trainings, writes, strict=True)
        }
        with torch.no_grad():
            rows = measure_writes(
                bridge, "induction", parameters, sequences=[text.values() for text in texts]
            )
            tokens = torch.tensor([texts[0].tokens])
            expected = [
                -float(li.teacher_forced_log_probs(bridge, tokens, patch)[0, -2:].sum())
                for patch in (
                    None,
                    *(
                        read_write(write_bytes(w)).patch(seed=t.seed)
                        for t, w in zip(trainings, writes, strict=True)
                    ),
                )
            ]
        losses = rows[rows["measure"] == "loss"]
        assert losses["seed"].tolist() == [NO_SEED, 4, 9]
        np.testing.assert_allclose(losses["total"], expected, rtol=0, atol=1e-9)
        assert expected[1] != pytest.approx(expected[2], abs=1e-3)
        means = over_seeds(losses)
        assert means["source"].tolist() == ["none", "random"]
        assert means["total"].iloc[1] == pytest.approx(np.mean(expected[1:]), abs=1e-9)
        assert means["count"].tolist() == [2, 2]
        assert NO_PATCH.mode in means["mode"].tolist()


@pytest.fixture
def few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(t for t in materials.templates() if t.group == "idea" and t.distance == "near")
    monkeypatch.setattr(materials, "templates", lambda: few)


@pytest.mark.usefixtures("few_templates")
class TestTexts:
    def test_no_document_is_trained_on_and_measured(self) -> None:
        bridge = shared_bridge("llama")
        settings = LearnedSettings.preset("quick", 3)
        measured = measured_sequences(bridge, settings)
        texts = training_texts(bridge, settings, measured["text"])
        kept = [t for t in measured["text"] if t.tags == "python_reference"]
        assert len(kept) == 10
        assert len(texts) == len(materials.python_reference()) - 10
        beginnings = {tuple(text[:40]) for text in texts}
        assert beginnings.isdisjoint({t.tokens[:40] for t in kept})
        assert all(text[0] == bridge.tokenizer.bos_token_id for text in texts)
        assert {t.tags for t in measured["text"]} == {"prose", "python_reference", "python_code"}
        assert {t.half for t in measured["induction"]} == {"selection", "report"}

    def test_code_begins_with_a_definition(self) -> None:
        documents = python_code()
        assert len(documents) > 100
        assert len({document.title for document in documents}) == len(documents)
        assert all(document.text.startswith(("def ", "class ")) for document in documents)
        assert max(len(document.text) for document in documents) == 8192
        assert "dataclasses" in {document.title for document in documents}

    def test_one_document_is_not_enough(self, tmp_path: Path) -> None:
        (tmp_path / "one.txt").write_text("the quick brown fox")
        settings = LearnedSettings.preset("quick", 3)
        material = dataclasses.replace(settings.material, texts=(str(tmp_path / "one.txt"),))
        with pytest.raises(ValueError, match="nothing for text on the report half"):
            measured_sequences(
                shared_bridge("llama"), dataclasses.replace(settings, material=material)
            )


class TestSettings:
    @pytest.mark.parametrize("preset", ["quick", "full"])
    @pytest.mark.parametrize("n_layers", [1, 3, 12, 30])
    def test_presets_survive_json_and_fit_the_model(self, preset: str, n_layers: int) -> None:
        settings = LearnedSettings.preset(preset, n_layers)
        assert from_values(LearnedSettings, to_values(settings)) == settings
        assert all(0 <= i < n_layers for i in (settings.layer, *settings.sweep_layers))
        assert settings.options.patience is None
        assert bool(settings.sweep_layers) == (preset == "full")

    def test_the_default_model_is_patched_at_22(self) -> None:
        settings = LearnedSettings.preset("full", 30)
        assert (settings.layer, settings.seeds, settings.steps) == (22, (0, 1, 2), 150)
        assert settings.sweep_layers == (12, 18, 22, 25, 28)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seeds": ()}, "seeds must be one or more"),
            ({"seeds": (1, 1)}, "seeds must be one or more different"),
            ({"options": li.TrainingOptions()}, "must be None"),
            ({"sweep_controls": ("true",)}, "sweep_controls must be some of"),
            ({"sweep_layers": ()}, "give those too"),
            ({"sweep_steps": 20}, "sweep_steps and steps are both 20"),
            ({"directions": 0}, "directions must be at least 1"),
        ],
    )
    def test_settings_that_cannot_be_run_are_refused(self, change: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SETTINGS, **change)


def test_a_model_that_hides_its_attention_is_read_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages_module, "shows_attention", lambda *_: False)
    few = dataclasses.replace(WITHOUT_SWEEPS, seeds=(0,), steps=2)
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
