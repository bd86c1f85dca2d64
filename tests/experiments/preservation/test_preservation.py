"""Preservation: what is read, the correlations, and verdicts on planted data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy import stats
from transformer_lens.model_bridge import TransformerBridge

from lens_interventions import materials
from lens_interventions.experiments import RunDirectoryError, load_result
from lens_interventions.experiments.design.contrasts import Resampling
from lens_interventions.experiments.preservation import PreservationSettings, preservation
from lens_interventions.experiments.preservation.analysis import analyse
from lens_interventions.experiments.preservation.correlations import (
    doubly_centred,
    spearman_interval,
)
from lens_interventions.experiments.preservation.lens_ranks import measure_templates, measure_tokens
from lens_interventions.experiments.preservation.stages import (
    chosen_documents,
    count_tokens,
    template_items,
    text_digest,
)
from lens_interventions.experiments.preservation.token_rows import NET, token_rows
from lens_interventions.materials.corpora import read_documents
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.usefixtures("without_gradients")

FEW = Resampling(n_resamples=199)
SMALL = PreservationSettings(
    texts=("prose",),
    documents=4,
    document_tokens=20,
    template_words=1,
    batch=2,
    resampling=FEW,
)


def long_bridge() -> TransformerBridge:
    """Room for the templates, which are long in a vocabulary of 112."""
    return tiny_bridge("llama", max_position_embeddings=512)


def documents() -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    return [
        {"cluster": name, "tokens": torch.randint(4, 112, (n,), generator=generator).tolist()}
        for name, n in (("a", 9), ("b", 9), ("c", 8))
    ]


def naive_log_probs(bridge: TransformerBridge, tokens: list[int]) -> list[torch.Tensor]:
    """`[pos, d_vocab]` at every residual point, by TransformerLens's own modules."""
    _, cache = bridge.run_with_cache(torch.tensor([tokens]))
    n = int(bridge.cfg.n_layers)
    points = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(n)]
    points.append(cache[f"blocks.{n - 1}.hook_resid_post"])
    return [bridge.unembed(bridge.ln_final(r))[0].log_softmax(-1) for r in points]


def test_ranks_log_probs_and_surprisal_are_the_lens_s(llama: TransformerBridge) -> None:
    rows = measure_tokens(llama, documents(), 1)
    for document in documents():
        tokens = document["tokens"]
        points = naive_log_probs(llama, tokens)
        for point, log_probs in enumerate(points):
            here = rows[(rows["document"] == document["cluster"]) & (rows["point"] == point)]
            assert here["position"].tolist() == list(range(1, len(tokens)))
            for row in here.to_dict("records"):
                position = row["position"]
                at = log_probs[position]
                assert row["rank"] == int((at > at[tokens[position]]).sum())
                assert_allclose(row["log_prob"], float(at[tokens[position]]), atol=1e-9)
                before = points[-1][position - 1]
                assert_allclose(row["surprisal"], -float(before[tokens[position]]), atol=1e-9)


def test_elsewhere_is_a_position_of_another_document(llama: TransformerBridge) -> None:
    """Each value is found at some position of another document that holds another token."""
    rows = measure_tokens(llama, documents(), 1)
    read = {d["cluster"]: naive_log_probs(llama, d["tokens"]) for d in documents()}
    tokens = {d["cluster"]: d["tokens"] for d in documents()}
    assert rows["elsewhere_rank"].notna().mean() > 0.8
    for row in rows[rows["elsewhere_log_prob"].notna()].to_dict("records"):
        candidates = [
            float(points[row["point"]][position, row["token"]])
            for name, points in read.items()
            if name != row["document"]
            for position in range(1, len(tokens[name]))
            if tokens[name][position] != row["token"]
        ]
        # float64 all the way; the batch is padded here and not there.
        assert np.abs(np.array(candidates) - row["elsewhere_log_prob"]).min() < 1e-9


def test_a_token_s_rarity_leaves_its_own_document_out() -> None:
    counts = pd.DataFrame(
        {
            "document": ["a", "a", "b", "b"],
            "token": [5, 6, 5, 7],
            "count": [100, 1, 3, 6],
            "d_vocab": 112,
        }
    )
    point = {"surprisal": 1.0, "rank": 0, "log_prob": 0.0}
    elsewhere = {"elsewhere_rank": 1.0, "elsewhere_log_prob": 0.0}
    rows = pd.DataFrame(
        [
            {"document": d, "token": t, "point": 0, "label": "0_pre", **point, **elsewhere}
            for d, t in (("a", 5), ("b", 5))
        ]
    )
    rarity = token_rows(rows, counts).rarity
    total = np.log([9 + 56, 101 + 56])  # half a count for each of 112 tokens
    assert_allclose(rarity, total - np.log([3.5, 100.5]), atol=1e-12)


def test_templates_are_read_at_their_word_and_scored_at_its_copy() -> None:
    bridge = long_bridge()
    items = template_items(bridge, SMALL)
    assert len(items) == 96  # 6 groups, 4 frames, a common and a rare word, near and far
    for item in items:
        prefix, word, first = item["prefix"], item["word"], item["first"]
        assert [prefix[i] for i in first] == word
        assert bridge.tokenizer.decode(word).strip() == item["said"]
    chosen = [items[0], items[-1]]
    rows = measure_templates(bridge, chosen, 1)
    for item in chosen:
        text = [*item["prefix"], *item["word"]]
        points = naive_log_probs(bridge, text)
        start = len(item["prefix"])
        copied = sum(
            float(points[-1][start + n - 1, token]) for n, token in enumerate(item["word"])
        )
        for point, log_probs in enumerate(points):
            (row,) = rows[(rows["item"] == item["item"]) & (rows["point"] == point)].to_dict(
                "records"
            )
            ranks = [int((log_probs[i] > log_probs[i, text[i]]).sum()) for i in item["first"]]
            assert_allclose(row["log_rank"], np.log1p(ranks).mean(), atol=1e-9)
            assert_allclose(row["copy_log_prob"], copied, atol=1e-9)


def test_spearman_is_scipy_s_and_so_is_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    y = (x + rng.normal(size=40)).round(1)  # with ties
    found = spearman_interval(y, x, np.arange(40), FEW)
    assert_allclose(found.estimate, stats.spearmanr(y, x).statistic, atol=1e-12)
    ranks = stats.rankdata(y), stats.rankdata(x)
    expected = stats.bootstrap(
        ranks,
        lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic,
        paired=True,
        vectorized=True,
        n_resamples=199,
        method="BCa",
        rng=FEW.rng(),
    ).confidence_interval
    assert_allclose([found.low, found.high], [expected.low, expected.high], atol=1e-9)


def test_partial_correlation_is_that_of_residuals() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=200)
    x, y = z + rng.normal(size=200), z + rng.normal(size=200)
    found = spearman_interval(y, x, np.arange(200) // 5, FEW, given=z)
    ry, rx, rz = (stats.rankdata(v) for v in (y, x, z))
    design = np.stack([np.ones(200), rz], axis=1)
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (ry, rx)]
    assert_allclose(found.estimate, np.corrcoef(left)[0, 1], atol=1e-9)
    assert found.n == 40
    # Only z ties them together.
    assert spearman_interval(y, x, np.arange(200) // 5, FEW).low > 0.2
    assert found.low < 0 < found.high


def test_copies_of_a_text_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=30), rng.normal(size=30)
    once = spearman_interval(y, x, np.arange(30), FEW)
    copied = spearman_interval(np.repeat(y, 9), np.repeat(x, 9), np.repeat(np.arange(30), 9), FEW)
    assert_allclose([copied.low, copied.high], [once.low, once.high], atol=1e-9)


def test_a_constant_has_no_correlation() -> None:
    found = spearman_interval(np.ones(20), np.arange(20.0), np.arange(20) // 2, FEW)
    assert found.method == "none"
    assert np.isnan(found.estimate)


def test_double_centring_is_the_residual_of_both_means() -> None:
    rng = np.random.default_rng(4)
    rows, columns = rng.integers(0, 5, 60), rng.integers(0, 4, 60)
    values = rng.normal(size=60) + rows - 2.0 * columns
    dummies = np.concatenate([np.eye(5)[rows], np.eye(4)[columns]], axis=1)
    fitted = dummies @ np.linalg.lstsq(dummies, values, rcond=None)[0]
    assert_allclose(doubly_centred(values, rows, columns), values - fitted, atol=1e-9)


def planted(effect: float) -> dict[str, pd.DataFrame]:
    """Tables of 40 documents in which every nat of rarity moves the log-rank by -`effect`."""
    rng = np.random.default_rng(5)
    labels = ["0_pre", "1_pre", "2_pre", "3_pre", "final_post"]
    tokens = rng.geometric(0.08, size=(40, 50)).clip(max=111)
    counts = pd.DataFrame(
        [
            {"document": f"d{d}", "token": t, "count": int((row == t).sum()), "d_vocab": 112}
            for d, row in enumerate(tokens)
            for t in np.unique(row)
        ]
    )
    rarity = np.log(tokens.size) - np.log(np.bincount(tokens.ravel(), minlength=112) + 0.5)
    document, position = np.indices(tokens.shape)
    token, surprisal = tokens.ravel(), rng.exponential(3, tokens.size)
    parts = []
    for point, label in enumerate(labels):
        noise = rng.normal(0, 1, tokens.size)
        kept = effect * rarity[token] + noise
        parts.append(
            pd.DataFrame(
                {
                    "document": [f"d{d}" for d in document.ravel()],
                    "position": position.ravel(),
                    "token": token,
                    "surprisal": surprisal,
                    "point": point,
                    "label": label,
                    "rank": np.exp(9 - kept).round(),
                    "log_prob": -9 + kept,
                    "elsewhere_rank": np.exp(9.0),
                    "elsewhere_log_prob": -9.0,
                }
            )
        )
    words = [f"w{n}" for n in range(24)]
    items = pd.DataFrame(
        [
            {
                "item": n * 8 + f,
                "group": "g",
                "frame": f"f{f}",
                "said": word,
                "frequency": "rare",
                "distance": "near",
                "pieces": 1,
                "copy_log_prob": n / 3 + f + quality,
                "point": point,
                "label": label,
                "log_rank": n - f - effect * quality,
                "log_prob": 0.0,
            }
            for n, word in enumerate(words)
            for f in range(8)
            for quality in [float(rng.normal())]
            for point, label in enumerate(labels)
        ]
    )
    if effect == 0:
        items["log_rank"] = items["log_rank"] + rng.normal(size=192).repeat(len(labels))
    return {"tokens": pd.concat(parts, ignore_index=True), "counts": counts, "templates": items}


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (0.5, ["helps", "helps", "no effect", "helps"]),
        (0.0, ["no effect", "no effect", "no effect", "undecided"]),
        (-0.5, ["hurts", "hurts", "no effect", "hurts"]),
    ],
)
def test_planted_effects_are_found_and_planted_nulls_are_not(
    effect: float, expected: list[str]
) -> None:
    found = analyse(replace(SMALL, resampling=FEW), planted(effect))
    assert [finding.verdict.outcome for finding in found.verdicts] == expected


def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    result = preservation(long_bridge, settings=SMALL, out=tmp_path)
    table = result.to_dataframe()
    assert table["point"].unique().tolist() == ["0_pre", "1_pre", "2_pre", "final_post"]
    assert table["n"].max() == 4
    assert len(result.verdicts) == 4
    loaded = load_result(tmp_path)
    assert_frame_equal(loaded.to_dataframe(), table)
    figures = loaded.figures()
    assert {finding.figure for finding in result.verdicts} <= set(figures)
    buttons = figures["correlation"].layout.updatemenus[0].buttons
    assert [button.label for button in buttons][-1] == f"preserved: {NET}"
    shown = [trace.visible for trace in figures["correlation"].data]
    assert shown == list(buttons[0].args[0]["visible"])


def test_counts_are_of_whole_documents(llama: TransformerBridge) -> None:
    counts = count_tokens(llama, "prose", text_digest(materials.prose()))
    assert counts["document"].nunique() == 40
    assert counts["count"].sum() > 10_000
    assert not counts.duplicated(["document", "token"]).any()


def test_a_text_that_is_there_twice_is_read_and_counted_once(
    llama: TransformerBridge, tmp_path: Path
) -> None:
    mine = str(tmp_path / "mine.txt")
    Path(mine).write_text("\n\n".join(f"the time of fox {n}" for n in "abcab"))
    documents = read_documents(mine)
    counts = count_tokens(llama, mine, text_digest(documents))
    settings = replace(SMALL, texts=(mine,), documents=9)
    chosen = chosen_documents(llama, settings, {mine: documents})
    assert sorted(document["cluster"] for document in chosen) == [f"{mine}: {n}" for n in range(3)]
    assert {*counts["document"]} == {document["cluster"] for document in chosen}


def test_settings_that_leave_no_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match="batch=1"):
        replace(SMALL, batch=1)


def test_a_text_that_changes_while_a_run_is_unfinished_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "mine.txt"
    beginnings = "\n\n".join(f"{name} {'the quick brown fox ' * 9}" for name in "abcd")
    text.write_text(beginnings)
    settings = replace(SMALL, texts=(str(text),))
    preservation(long_bridge, settings=settings, out=tmp_path / "run")
    # Behind what is read, but it counts for the rarity.
    text.write_text(f"{beginnings} and the lazy people say")
    with pytest.raises(RunDirectoryError, match=r"counts.*has a text file changed"):
        preservation(long_bridge, settings=settings, out=tmp_path / "run")
    planned = text_digest(materials.prose())
    with pytest.raises(ValueError, match=r"mine\.txt is another text here and now"):
        count_tokens(shared_bridge("llama"), str(text), planned)
