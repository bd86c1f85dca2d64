"""The lens against naive statistics of TransformerLens's own readout of every point."""

from functools import partial

import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache
from transformer_lens.tools import analysis

import lens_interventions as li
from lens_interventions.lens import reduction
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.model import residuals as model_residuals
from tests.support import reference
from tests.support.architectures import N_CTX
from tests.support.clean import hook_refused
from tests.support.tiny import D_VOCAB, shared_bridge, tiny_bridge

TOKENS = torch.arange(5, 29).view(2, 12) * 7 % 97 + 4
ALL = ("kl", "kl_reverse", "js")
# Attention and MLP of these read the same residual, so nothing lies between them.
PARALLEL = {"gptj", "codegen", "gpt_neox", "phi", "cohere", "cohere2", "falcon"}
# Models take attention's softmax in float32, where rows of other lengths round differently.
SHAPE_ATOL = 2e-5


def assert_statistics(trajectory, logits, tokens, *, compare, watched=(), atol=1e-9):
    """Hold every statistic of a trajectory to its naive value; `logits` are those of its points."""
    final, first, other = logits[-1], logits[0], logits[compare]
    tokens = tokens.numpy()
    following = np.roll(tokens, -1, axis=-1)
    has_next = np.arange(tokens.shape[1]) < tokens.shape[1] - 1

    def close(name, expected, where=...):
        np.testing.assert_allclose(
            trajectory.statistic(name).numpy()[where], expected[where], atol=atol, err_msg=name
        )

    def of_token(name, ids, where=...):
        ids = np.broadcast_to(ids, logits.shape[:-1])
        ranks = getattr(trajectory, f"{name}_rank").numpy()
        np.testing.assert_array_equal(ranks[where], reference.ranks(logits, ids)[where])
        close(f"{name}_log_prob", reference.log_probs(logits, ids), where)

    of_token("final", final.argmax(-1))
    of_token("compare", other.argmax(-1))
    of_token("input", tokens)
    of_token("next", following, np.s_[..., has_next])
    for i, token in enumerate(watched):
        ids = np.full(logits.shape[:-1], token)
        np.testing.assert_array_equal(
            trajectory.watched_rank[..., i].numpy(), reference.ranks(logits, ids)
        )
        np.testing.assert_allclose(
            trajectory.watched_log_prob[..., i].numpy(), reference.log_probs(logits, ids), atol=atol
        )
    for name, point in {"final": final, "input": first, "compare": other}.items():
        close(f"kl_{name}", reference.kl(point[None], logits))
        close(f"kl_{name}_reverse", reference.kl(logits, point[None]))
        close(f"js_{name}", reference.js(np.broadcast_to(point, logits.shape), logits))
    close("entropy", reference.entropies(logits))
    top = -np.sort(-logits, axis=-1)[..., : trajectory.top_ids.shape[-1]]
    np.testing.assert_allclose(trajectory.top_logits.numpy(), top, atol=atol)
    np.testing.assert_allclose(
        np.take_along_axis(logits, trajectory.top_ids.numpy(), -1), top, atol=atol
    )
    assert (trajectory.next_rank[..., ~torch.tensor(has_next)] == -1).all()
    assert trajectory.next_log_prob[..., ~torch.tensor(has_next)].isnan().all()


def test_every_statistic_is_the_naive_one(bridge):
    assert_naive_statistics(bridge)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("bridge", ["llama", "gemma2"], indirect=True)
def test_threads_change_no_statistic(bridge, monkeypatch, threads):
    # Chunks of five rows are reduced one, two, or all five rows at a time.
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(reduction, "_THREAD_TILE_BYTES", D_VOCAB * bridge.cfg.dtype.itemsize)
    assert_naive_statistics(bridge)


def assert_naive_statistics(bridge):
    logits = reference.point_logits(bridge, TOKENS)
    trajectory = logit_lens(
        bridge, TOKENS, divergences=ALL, compare_with=2, watch=[9, 50], chunk_size=5
    )
    # 1e-9: float64, and divergences of some hundred nats that are differences of larger numbers.
    assert_statistics(trajectory, logits, TOKENS, compare=2, watched=[9, 50])


@pytest.mark.parametrize("divergences", [ALL, ("kl",)])
@pytest.mark.parametrize("arch", ["gptj", "codegen", "phi"])
def test_tokens_that_the_head_excludes_have_no_part_in_a_distribution(arch, divergences):
    bridge = tiny_bridge(arch)
    bridge.b_U.data[-9:] = -torch.inf  # as of ids that pad a vocabulary to a round size
    logits = reference.point_logits(bridge, TOKENS)
    read = logit_lens(bridge, TOKENS, divergences=divergences, watch=[D_VOCAB - 1, 9], chunk_size=5)
    np.testing.assert_allclose(read.entropy, reference.entropies(logits), atol=1e-9)
    np.testing.assert_allclose(read.kl_final, reference.kl(logits[-1:], logits), atol=1e-9)
    np.testing.assert_allclose(read.kl_input, reference.kl(logits[:1], logits), atol=1e-9)
    assert (read.watched_log_prob[..., 0] == -torch.inf).all()
    if divergences == ALL:
        np.testing.assert_allclose(
            read.kl_final_reverse, reference.kl(logits, logits[-1:]), atol=1e-9
        )
        last = np.broadcast_to(logits[-1], logits.shape)
        np.testing.assert_allclose(read.js_final, reference.js(last, logits), atol=1e-9)


@pytest.mark.parametrize(("d_vocab", "rows"), [(100, 8192), (49_152, 128), (262_144, 64)])
def test_a_chunk_has_24_mib_of_logits_or_64_rows(d_vocab, rows):
    assert reduction.default_chunk_size(torch.empty(d_vocab, 2)) == rows


def test_few_positions_of_many_texts_are_multiplied_together(monkeypatch):
    """Each product reads the whole unembedding."""
    bridge, sizes = shared_bridge("llama"), []
    reduce = reduction.ChunkReducer.reduce

    def counted(self, residuals, targets):
        sizes.append(len(residuals["final_post"]))
        return reduce(self, residuals, targets)

    texts = [text.tolist() for text in TOKENS.repeat(4, 1)]
    whole = logit_lens(bridge, texts, positions=-1)
    monkeypatch.setattr(model_residuals, "_WHOLE", 24)
    monkeypatch.setattr(reduction.ChunkReducer, "reduce", counted)
    few = logit_lens(bridge, texts, positions=-1, chunk_size=5)
    assert sizes == [4, 4]  # pieces of two texts
    np.testing.assert_allclose(few.entropy, whole.entropy, rtol=0, atol=SHAPE_ATOL)
    assert torch.equal(few.top_ids, whole.top_ids)


def test_the_last_point_is_the_model(bridge):
    logits = bridge(TOKENS).detach()
    trajectory = logit_lens(bridge, TOKENS, top_k=D_VOCAB, points=[-1])
    own = torch.empty_like(logits).scatter(-1, trajectory.top_ids[0], trajectory.top_logits[0])
    torch.testing.assert_close(own, logits, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("n_texts", [2, 200])  # with many rows, products would be faster ones
def test_under_autocast_the_lens_is_the_model_in_that_precision(arch, n_texts):
    bridge, tokens = shared_bridge(arch, torch.float32), TOKENS.repeat(n_texts // 2, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = bridge(tokens)
        points = reference.point_logits(bridge, tokens)
        trajectory = logit_lens(bridge, tokens, top_k=D_VOCAB)
    assert logits.dtype == torch.bfloat16
    own = torch.empty(logits.shape).scatter(
        -1, trajectory.top_ids[-1], trajectory.top_logits[-1].float()
    )
    assert torch.equal(own, logits.float())
    final = logits.double().numpy()
    ranks = reference.ranks(final, tokens.numpy())
    np.testing.assert_array_equal(trajectory.input_rank[-1], ranks)
    np.testing.assert_allclose(trajectory.entropy[-1], reference.entropies(final), atol=1e-5)
    # TransformerLens's own readout rounds Gemma's soft cap elsewhere.
    kl = reference.kl(points[-1:], points)
    np.testing.assert_allclose(trajectory.kl_final, kl, atol=1e-2 if arch == "gemma2" else 1e-5)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "qwen3", "opt"])
def test_compatibility_mode_reads_log_probabilities(arch):
    bridge = tiny_bridge(arch)
    raw = logit_lens(bridge, TOKENS)
    bridge.enable_compatibility_mode(disable_warnings=True)
    trajectory = logit_lens(bridge, TOKENS, divergences=ALL, compare_with=1)
    logits = reference.point_logits(bridge, TOKENS)
    assert_statistics(trajectory, logits, TOKENS, compare=1)
    own = bridge(TOKENS).log_softmax(-1).amax(-1)
    torch.testing.assert_close(trajectory.top_log_probs[-1, ..., 0], own, rtol=0, atol=1e-9)
    # The modes agree on the output, and not on what lies below it. TransformerLens folds weights in
    # float32.
    torch.testing.assert_close(trajectory.entropy[-1], raw.entropy[-1], rtol=0, atol=1e-6)


def test_middle_points(request, bridge):
    if request.node.callspec.params["bridge"] in PARALLEL:
        with pytest.raises(ValueError, match="read it with incl_mid=False"):
            logit_lens(bridge, TOKENS, incl_mid=True)
        return
    logits = reference.point_logits(bridge, TOKENS, incl_mid=True)
    trajectory = logit_lens(bridge, TOKENS, divergences=ALL, compare_with="1_mid", incl_mid=True)
    assert trajectory.points[:3] == ("0_pre", "0_mid", "1_pre")
    assert_statistics(trajectory, logits, TOKENS, compare=3)


# All norms, biases, transforms of the logits and orders of casts that a readout may have.
@pytest.mark.parametrize(
    "arch", ["gpt2", "gptj", "llama", "gemma2", "gemma3_text", "cohere", "granite", "olmo2"]
)
def test_bfloat16(arch):
    """Logits as the model rounds them, statistics of them in float32."""
    bridge = shared_bridge(arch, torch.bfloat16)
    trajectory = logit_lens(bridge, TOKENS, divergences=ALL)
    logits = reference.point_logits(bridge, TOKENS)
    # Products of other shapes round differently: one unit of bfloat16's 8 bits of a logit.
    top = np.sort(logits, -1)[..., -1]
    np.testing.assert_allclose(trajectory.top_logits[..., 0].numpy(), top, rtol=2**-7)
    final, first = logits[-1:], logits[:1]
    broad = np.broadcast_to(final, logits.shape)
    expected = {
        "kl_final": reference.kl(final, logits),
        "kl_input": reference.kl(first, logits),
        "kl_final_reverse": reference.kl(logits, final),
        "js_final": reference.js(broad, logits),
        "entropy": reference.entropies(logits),
    }
    for name, values in expected.items():
        found = getattr(trajectory, name).numpy()
        np.testing.assert_allclose(found, values, atol=2**-6 * np.abs(logits).max(), err_msg=name)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2"])
@pytest.mark.skipif(
    not hasattr(analysis, "logit_lens"), reason="TransformerLens has a logit lens from version 4 on"
)
def test_agrees_with_transformer_lens(arch):
    transformer_lens_logit_lens = analysis.logit_lens
    bridge = shared_bridge(arch)
    text = "the people say plasma"
    theirs = transformer_lens_logit_lens(bridge, text, positions=None, top_k=5)
    targets = transformer_lens_logit_lens(bridge, text, positions=None, targets=[7, 30])
    ours = logit_lens(bridge, text, watch=[7, 30], top_k=5)
    # TransformerLens takes entropies in float32.
    torch.testing.assert_close(ours.entropy.float(), theirs.readout.entropy, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.top_logits, theirs.values, rtol=0, atol=1e-9)
    assert torch.equal(ours.top_ids, theirs.readout.top_ids)
    assert torch.equal(ours.watched_rank, targets.readout.target_ranks)
    assert list(ours.points) == theirs.labels


def test_the_pre_affine_reading_is_what_transformer_lens_caches(bridge):
    _, cache = bridge.run_with_cache(TOKENS)
    normalized = cache["ln_final.hook_normalized"]
    expected = (normalized @ bridge.W_U + bridge.b_U).detach()
    expected = bridge.adapter.apply_output_logits_transform(expected)
    trajectory = logit_lens(bridge, TOKENS, norm="pre_affine", points=[-1], top_k=D_VOCAB)
    own = torch.empty_like(expected).scatter(-1, trajectory.top_ids[0], trajectory.top_logits[0])
    torch.testing.assert_close(own, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma3_text", "opt"])
def test_prompts_of_a_batch_get_what_they_get_alone(arch):
    bridge = shared_bridge(arch)
    texts = ["the quick brown fox jumps", "people", "they mean blood"]
    together = logit_lens(bridge, texts, watch=7, next_token=9)
    for i, text in enumerate(texts):
        alone = logit_lens(bridge, text, watch=7, next_token=9)
        for name, value in together.prompt(i).tensors().items():
            torch.testing.assert_close(
                value, alone.tensors()[name], rtol=0, atol=SHAPE_ATOL, equal_nan=True
            )
    assert together.next_rank[:, ~together.mask].eq(-1).all()
    assert together.entropy[:, ~together.mask].isnan().all()


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2", "opt"])
def test_left_padding_is_no_part_of_the_text(arch):
    bridge = shared_bridge(arch)
    mask = torch.ones_like(TOKENS)
    mask[1, :4] = 0
    padded = logit_lens(bridge, TOKENS, attention_mask=mask)
    alone = logit_lens(bridge, TOKENS[1, 4:])
    for name, value in padded.prompt(1).tensors().items():
        torch.testing.assert_close(
            value, alone.tensors()[name], rtol=0, atol=SHAPE_ATOL, equal_nan=True
        )


@pytest.mark.parametrize(
    ("positions", "columns"),
    [
        (-1, [11]),
        ((2, 5), [2, 3, 4]),
        (range(1, 8, 3), [1, 4, 7]),
        ([0, 7], [0, 7]),
        ((-2, None), [10, 11]),
    ],
)
def test_positions_are_a_cut_of_the_whole(positions, columns):
    bridge = shared_bridge("llama")
    whole = logit_lens(bridge, TOKENS)
    cut = logit_lens(bridge, TOKENS, positions=positions)
    assert cut.positions.tolist() == [columns] * 2
    torch.testing.assert_close(cut.kl_input, whole.kl_input[..., columns])
    torch.testing.assert_close(cut.next_rank, whole.next_rank[..., columns])


def test_a_last_position_of_unequal_prompts_is_each_ones_own():
    bridge = shared_bridge("llama")
    texts = ["the quick brown fox jumps", "people"]
    last = logit_lens(bridge, texts, positions=-1)
    for i, text in enumerate(texts):
        alone = logit_lens(bridge, text).entropy[:, 0, -1]
        torch.testing.assert_close(last.entropy[:, i, 0], alone, rtol=0, atol=SHAPE_ATOL)


@pytest.mark.parametrize("side", ["left", "right"])
def test_more_padding_than_the_context_holds_is_not_read(side):
    bridge, real, padding = shared_bridge("gpt2"), TOKENS[:, :9], torch.zeros(2, N_CTX).long()
    wide = torch.cat([padding, real] if side == "left" else [real, padding], dim=1)
    mask = torch.cat([padding, real > 0] if side == "left" else [real > 0, padding], dim=1)
    read, expected = logit_lens(bridge, wide, attention_mask=mask), logit_lens(bridge, real)
    torch.testing.assert_close(read.kl_final, expected.kl_final, rtol=0, atol=1e-9)


@pytest.mark.parametrize("option", [{"points": [1, -1]}, {"every": 2}, {"include_input": False}])
def test_points_are_a_cut_of_the_whole(option):
    bridge = shared_bridge("llama")
    whole, cut = logit_lens(bridge, TOKENS), logit_lens(bridge, TOKENS, **option)
    rows = [whole.points.index(label) for label in cut.points]
    for name in ("kl_input", "final_rank", "kl_final", "top_ids"):
        assert torch.equal(cut.statistic(name), whole.statistic(name)[rows])


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
def test_the_chunk_size_changes_nothing(chunk_size):
    bridge = shared_bridge("gemma2")
    whole, cut = logit_lens(bridge, TOKENS), logit_lens(bridge, TOKENS, chunk_size=chunk_size)
    for name, value in whole.tensors().items():
        torch.testing.assert_close(cut.tensors()[name], value, rtol=0, atol=1e-9, equal_nan=True)


def test_a_translator_is_applied_below_the_last_point():
    bridge = shared_bridge("llama")
    layers = []

    def shift(residual, layer):
        layers.append(layer)
        return residual + layer

    _, cache = bridge.run_with_cache(TOKENS)
    stack = [cache[f"blocks.{layer}.hook_resid_pre"] + layer for layer in range(3)]
    stack.append(cache["blocks.2.hook_resid_post"])
    shifted = ActivationCache(
        {f"blocks.{layer}.hook_resid_pre": value for layer, value in enumerate(stack[:3])}
        | {"blocks.2.hook_resid_post": stack[3]},
        bridge,
    )
    ours = logit_lens(bridge, TOKENS, lens=shift)
    expected = logit_lens(bridge, shifted, tokens=TOKENS)
    torch.testing.assert_close(ours.top_logits, expected.top_logits)
    torch.testing.assert_close(ours.kl_input, expected.kl_input)
    assert set(layers) == {0, 1, 2}


def test_patched_activations_are_read(bridge):
    def zero_head(tensor, hook):
        return tensor * 0.5

    name = "blocks.1.hook_resid_pre"
    with bridge.hooks(fwd_hooks=[(name, zero_head)]):
        logits = bridge(TOKENS).detach()
        hooked = logit_lens(bridge, TOKENS, top_k=1)
        _, cache = bridge.run_with_cache(TOKENS)
    torch.testing.assert_close(hooked.top_logits[-1, ..., 0], logits.amax(-1), rtol=0, atol=1e-9)
    from_cache = logit_lens(bridge, cache, tokens=TOKENS, top_k=1)
    torch.testing.assert_close(from_cache.top_logits, hooked.top_logits, rtol=0, atol=1e-9)
    assert not torch.allclose(logit_lens(bridge, TOKENS, top_k=1).top_logits, hooked.top_logits)


@pytest.mark.parametrize("norm", ["full", "pre_affine"])
def test_the_users_hooks_see_one_run_only(norm):
    bridge = shared_bridge("llama")
    shapes = []
    hooks = [("blocks.2.hook_resid_pre", lambda tensor, hook: shapes.append(tensor.shape))]
    with bridge.hooks(fwd_hooks=hooks):
        logit_lens(bridge, TOKENS, norm=norm)
    assert shapes == [(*TOKENS.shape, 32)]  # reading is not running


@pytest.mark.parametrize(
    "read",
    [
        logit_lens,
        li.component_logits,
        partial(li.search_sequence, n_tokens=2),
    ],
)
@pytest.mark.parametrize("name", ["ln_final.hook_normalized", "unembed.hook_out"])
def test_hooks_that_reading_leaves_out_are_refused(read, name):
    bridge = shared_bridge("llama")
    with hook_refused(bridge, name):
        read(bridge, TOKENS[:1])


@pytest.mark.usefixtures("as_users_run")
def test_a_chunk_size_may_be_any_integer():
    bridge = shared_bridge("llama")
    chunked = logit_lens(bridge, TOKENS, chunk_size=np.int64(2))
    assert torch.equal(chunked.top_ids, logit_lens(bridge, TOKENS).top_ids)


def test_a_single_layer_a_single_token():
    bridge = tiny_bridge("gpt2", n_layer=1)
    trajectory = logit_lens(bridge, [5])
    assert trajectory.points == ("0_pre", "final_post")
    assert trajectory.tokens.shape == (1, 1)
    assert trajectory.next_rank.eq(-1).all()


def test_tokens_are_named_by_whatever_is_an_index():
    bridge = shared_bridge("llama")
    expected = logit_lens(bridge, TOKENS, watch=7, next_token=5)
    for seven, five in ((np.int64(7), torch.tensor(5)), ([torch.tensor(7)], [np.int64(5), 5])):
        read = logit_lens(bridge, TOKENS, watch=seven, next_token=five)
        assert torch.equal(read.watched_rank, expected.watched_rank)
        assert torch.equal(read.next_tokens, expected.next_tokens)
