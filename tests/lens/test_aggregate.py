"""A lens over many texts: sums and means of what each text gives alone."""

import copy

import numpy as np
import pandas
import pytest
import torch
from scipy import stats

from lens_interventions import plots
from lens_interventions.intervention.slopes.slope_map import slope_map
from lens_interventions.lens.lens_over import lens_over
from lens_interventions.lens.logit_lens import logit_lens
from tests.support.clean import left_as_found
from tests.support.corpora import random_texts
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge

BRIDGE = shared_bridge("llama")
TEXTS = ["the quick brown fox", "people say plasma", "they mean blood, the people say", "No."]


def test_means_are_over_all_positions_of_all_texts():
    frames = [logit_lens(BRIDGE, text).to_dataframe() for text in TEXTS]
    aggregate = lens_over(BRIDGE, (text for text in TEXTS), progress=False)
    for i, label in enumerate(aggregate.points):
        rows = [frame[frame.point == label] for frame in frames]
        for name in ("kl_final", "entropy", "agrees_final", "agrees_input"):
            pooled = np.concatenate([row[name] for row in rows])
            np.testing.assert_allclose(aggregate.means(name)[i], pooled.mean(), atol=1e-9)
        # The last position of each text has no next token.
        pooled = np.concatenate([row.next_log_prob[:-1] for row in rows])
        np.testing.assert_allclose(aggregate.means("next_log_prob")[i], pooled.mean(), atol=1e-9)
        pooled = np.concatenate([np.log10(1 + row.input_rank) for row in rows])
        np.testing.assert_allclose(aggregate.means("log10_input_rank")[i], pooled.mean(), atol=1e-9)


def test_intervals_resample_texts():
    aggregate = lens_over(BRIDGE, TEXTS, progress=False)
    frame = aggregate.to_dataframe()
    assert (frame.n == len(TEXTS)).all()
    final = frame[(frame.point == "final_post") & (frame.statistic == "agrees_final")]
    assert (final[["mean", "low", "high"]] == 1).all(axis=None)
    entropies = frame[(frame.point == "2_pre") & (frame.statistic == "entropy")].iloc[0]
    assert entropies.low < entropies["mean"] < entropies.high


def test_the_seed_draws_the_texts_of_an_interval():
    """With the same draws as scipy's bootstrap of each text's sums and counts."""
    texts = [text[: 3 + number % 4] for number, text in enumerate(random_texts(15))]
    aggregate = lens_over(BRIDGE, texts, points=[1], progress=False)
    (interval,) = aggregate.intervals("entropy", level=0.9, seed=5, n_resamples=999)
    values = [logit_lens(BRIDGE, text, points=[1]).entropy[0, 0].numpy() for text in texts]
    totals, counts = (np.array([f(each) for each in values]) for f in (np.sum, len))
    expected = stats.bootstrap(
        (totals, counts),
        lambda t, c, axis: t.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=999,
        confidence_level=0.9,
        rng=np.random.default_rng(5),
    ).confidence_interval
    # Sums in another order differ in the last digits only.
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_texts_are_cut_where_asked():
    cut = lens_over(BRIDGE, ["the quick brown fox jumps over"], max_tokens=4, progress=False)
    tokens = BRIDGE.to_tokens("the quick brown fox jumps over")[:, :4]
    expected = logit_lens(BRIDGE, tokens).kl_input.mean((1, 2))
    np.testing.assert_allclose(cut.means("kl_input"), expected, atol=1e-9)
    assert cut.counts[0].tolist() == [4]


def test_texts_are_cut_at_the_models_context():
    context = int(BRIDGE.cfg.n_ctx)
    texts = [[5, 6, 7] * context, [8, 9]]
    asked, cut = (lens_over(BRIDGE, texts, max_tokens=n, progress=False) for n in (1024, context))
    assert asked.counts.max(0).tolist() == [context, 2]
    np.testing.assert_array_equal(asked.totals, cut.totals)


def test_bad_texts_are_named_by_number():
    with left_as_found(BRIDGE):
        with pytest.raises(ValueError, match="text 1: the text is empty"):
            lens_over(BRIDGE, ["fox", ""], prepend_bos=False, progress=False)
        with pytest.raises(TypeError, match=r"^text 1: "):
            lens_over(BRIDGE, iter(["fox", 5]), progress=False)
        with pytest.raises(ValueError, match="there is no text; an iterator"):
            lens_over(BRIDGE, [], progress=False)
        with pytest.raises(TypeError, match="got one text"):  # not a text for each character
            lens_over(BRIDGE, "fox", progress=False)
    with pytest.raises(ValueError, match="'loss' was not aggregated"):
        lens_over(BRIDGE, ["fox"], progress=False).means("loss")


@pytest.mark.parametrize("max_tokens", [None, 4])
def test_several_texts_in_one_item_count_as_several(max_tokens):
    one, other = torch.tensor([[5, 6, 7, 8, 9, 10]]), torch.tensor([[11, 5, 12, 6, 13, 7]])
    options = {"max_tokens": max_tokens, "progress": False}
    together = lens_over(BRIDGE, [torch.cat([one, other])], **options)
    apart = lens_over(BRIDGE, [one, other], **options)
    assert together.counts.shape[1] == 2
    np.testing.assert_array_equal(together.counts, apart.counts)
    np.testing.assert_array_equal(together.totals, apart.totals)


def test_a_text_without_the_positions_counts_nowhere():
    positions = slice(4, None)
    short = lens_over(BRIDGE, [[5, 6], *TEXTS], positions=positions, progress=False)
    assert short.counts[:, 0].tolist() == [0] * len(short.statistics)
    there = lens_over(BRIDGE, TEXTS, positions=positions, progress=False)
    assert short.intervals("kl_final") == there.intervals("kl_final")
    # So they count as many texts.
    titles = [each.plot().layout.title.text for each in (short, there)]
    assert f"{int((there.counts[0] > 0).sum())} texts. Bands are" in titles[0]
    assert titles[0] == titles[1]
    one = lens_over(BRIDGE, [[5, 6], [5, 6, 7]], positions=2, progress=False)
    assert one.counts[0].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"no text has the positions slice\(4, None"):
        lens_over(BRIDGE, [[5, 6], [7]], positions=positions, progress=False)


@pytest.fixture(scope="module")
def aggregate():
    return lens_over(shared_bridge("llama"), TEXTS, progress=False)


def test_aggregate_curves_are_the_means_and_their_intervals(aggregate):
    figure = plots.plot_aggregate(aggregate, ["kl_final", "log10_final_rank", "agrees_final"])
    lines = [trace for trace in figure.data if trace.fill is None]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    for line, band, name in zip(
        lines, bands, ["kl_final", "log10_final_rank", "agrees_final"], strict=True
    ):
        np.testing.assert_allclose(line.y, aggregate.means(name)[1:], atol=5.1e-6)
        intervals = aggregate.intervals(name)[1:]
        around = [i.high for i in intervals] + [i.low for i in reversed(intervals)]
        np.testing.assert_allclose(band.y, around, atol=5.1e-6)
    units = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert units == ["nats", "rank (0 = top guess)", "share of positions"]
    assert aggregate.plot().data[0].fill == "toself"


def test_aggregates_are_compared_by_name(aggregate):
    figure = plots.plot_aggregate({"clean": aggregate, "patched": aggregate}, ["kl_final"])
    names = [trace.name for trace in figure.data if trace.fill is None]
    assert names == ["clean", "patched"]
    assert figure.layout.yaxis.title.text == "KL(final ‖ layer)<br>nats"
    # Of several statistics in one unit, each curve is named.
    both = plots.plot_aggregate({"clean": aggregate}, ["kl_final", "entropy"])
    names = [trace.name for trace in both.data if trace.fill is None]
    assert names == ["KL(final ‖ layer), clean", "Entropy of each layer's distribution, clean"]
    assert both.layout.yaxis.title.text == "nats"
    other = lens_over(shared_bridge("llama"), TEXTS, points=[0, 3], progress=False)
    with pytest.raises(ValueError, match="different points"):
        plots.plot_aggregate({"one": aggregate, "other": other})
    for wrong in ("loss", "kl_compare"):
        with pytest.raises(ValueError, match=wrong):
            plots.plot_aggregate(aggregate, [wrong])
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.plot_aggregate(aggregate, [])


def test_tokens_longer_than_expected_are_read_too():
    bridge = tiny_bridge("llama", vocab_size=D_VOCAB + 1)
    tokenizer = copy.deepcopy(bridge.tokenizer)
    tokenizer.add_tokens(["-" * 40])
    bridge.tokenizer = tokenizer
    whole = bridge.to_tokens("-" * 4000, prepend_bos=False)
    assert whole.shape[1] == 100
    cut = lens_over(bridge, ["-" * 4000], max_tokens=8, prepend_bos=False, progress=False)
    assert cut.counts[0].tolist() == [8]
    expected = logit_lens(bridge, whole[:, :8]).kl_input.mean((1, 2))
    np.testing.assert_allclose(cut.means("kl_input"), expected, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    "texts",
    [
        BRIDGE.tokenizer(TEXTS, return_tensors="pt", padding=True),
        {"a text": TEXTS[0]},
        pandas.DataFrame({"text": TEXTS}),
    ],
    ids=["tokenizer's output", "mapping", "table"],
)
def test_names_are_not_read_as_texts(texts):
    with pytest.raises(TypeError, match="of which only the names would be read"):
        lens_over(BRIDGE, texts, progress=False)
    with pytest.raises(TypeError, match="of which only the names would be read"):
        slope_map(BRIDGE, texts, progress=False)


def test_a_token_that_the_head_excludes_counts_in_no_mean_of_log_probs():
    bridge = tiny_bridge("gptj")
    with torch.no_grad():
        bridge.b_U[7] = -torch.inf
    texts = [[5, 7, 6, 8], [9, 10, 11]]
    aggregate = lens_over(bridge, texts, progress=False)
    alone = logit_lens(bridge, texts[0]).input_log_prob[:, 0]
    known = [0, 2, 3]
    assert alone[:, 1].isneginf().all()
    place = aggregate.statistics.index("input_log_prob")
    assert aggregate.counts[place].tolist() == [3, 3]
    np.testing.assert_allclose(
        aggregate.totals[place, :, 0], alone[:, known].double().sum(-1), rtol=0, atol=1e-9
    )
    assert np.isfinite(aggregate.to_dataframe()["mean"]).all()


@pytest.mark.usefixtures("as_users_run")
def test_what_is_no_text_is_named_where_texts_are_cut_too():
    with pytest.raises(TypeError, match=r"^text 1: "):
        lens_over(BRIDGE, ["fox", {"text": "fox"}], max_tokens=8, progress=False)
    several = lens_over(BRIDGE, [["the quick brown fox", "No."]], max_tokens=3, progress=False)
    assert several.counts[0].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"watch": [3]}, "no watched tokens, so it takes no watch"),
        ({"watch": torch.tensor([3, 5])}, "no watched tokens, so it takes no watch"),
        ({"compare_with": 1}, "no comparison with another point, so it takes no compare_with"),
        ({"divergences": ("kl", "js")}, r"no \['js'\], so it takes no divergences"),
    ],
)
def test_what_would_not_be_kept_is_refused(option, message):
    with pytest.raises(ValueError, match=message):
        lens_over(BRIDGE, TEXTS, progress=False, **option)
    defaults = {"watch": (), "compare_with": "final", "divergences": ("kl",)}
    lens_over(BRIDGE, TEXTS[:1], progress=False, **defaults)


@pytest.mark.parametrize("max_tokens", [2, None])
def test_a_mask_of_padding_is_refused(max_tokens):
    mask = torch.tensor([[1, 1, 0]])
    with pytest.raises(ValueError, match="each text without padding, and no attention_mask"):
        lens_over(BRIDGE, [[5, 6, 0]], max_tokens=max_tokens, attention_mask=mask, progress=False)


def test_a_mean_over_no_position_is_no_number():
    """A text of one token has no next token."""
    aggregate = lens_over(BRIDGE, [[7], [8]], progress=False)
    assert np.isnan(aggregate.means("next_log_prob")).all()
    assert np.isfinite(aggregate.means("kl_final")).all()


def test_the_input_is_drawn_if_it_is_all_there_is():
    aggregate = lens_over(shared_bridge("llama"), ["the fox"], points=[0], progress=False)
    (curve,) = plots.plot_aggregate(aggregate, ["entropy"]).data[-1:]
    np.testing.assert_allclose(curve.y, aggregate.means("entropy"), rtol=1e-5)
