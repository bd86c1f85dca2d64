"""HookedTransformer, which TransformerLens has up to version 3: it is read, and takes patches.

`make compat` runs these tests beside TransformerLens 3.9.
"""

import pytest
import torch
from torch import Tensor

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.exact import close
from tests.support.hooked import HookedTransformer, hooked
from tests.support.tiny import (
    D_VOCAB,
    random_tokens,
    tiny_bridge,
    tiny_model,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated"),
    pytest.mark.usefixtures("without_gradients"),
]

# What differs from a GPT-2 with untied embeddings and biases everywhere.
CONFIGS = {
    "LN": {},
    "LNPre": {"normalization_type": "LNPre"},
    "RMS": {"normalization_type": "RMS", "positional_embedding_type": "rotary"},
    "RMSPre": {"normalization_type": "RMSPre"},
    "final RMS": {"final_rms": True},
    "no norm": {"normalization_type": None},
    "rotary": {"positional_embedding_type": "rotary", "rotary_dim": 4},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "ALiBi": {"positional_embedding_type": "alibi"},
    "parallel": {"parallel_attn_mlp": True, "positional_embedding_type": "rotary"},
    "attention only": {"attn_only": True, "normalization_type": "LNPre"},
    "soft cap": {
        "output_logits_soft_cap": 2.0,
        "normalization_type": "RMS",
        "gated_mlp": True,
        "n_key_value_heads": 2,
    },
    "local": {"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local"]},
    "tied": {"tie_word_embeddings": True},
}
TOKENS = torch.tensor([[5, 9, 33, 71, 20, 44, 8], [90, 6, 6, 51, 12, 77, 13]])
PATCHES = {
    "interpolate": li.NextTokenPatch(layer=1, strength=0.4),
    "add": li.NextTokenPatch(layer=1, strength=0.7, mode="add", scale="norm"),
    "correct": li.NextTokenPatch(layer=1, strength=0.5, mode="correct"),
}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {name: hooked(**config) for name, config in CONFIGS.items()}


@pytest.fixture(params=CONFIGS)
def model(request, models):
    with left_as_found(models[request.param]) as shared:
        yield shared


@pytest.fixture
def plain(models):
    with left_as_found(models["LN"]) as shared:
        yield shared


def normalized(model: HookedTransformer, resid: Tensor) -> Tensor:
    """What the final norm makes of residuals before its gain and shift, by its definition."""
    kind, epsilon = model.cfg.normalization_type, model.cfg.eps
    if kind is None:
        return resid
    if kind.startswith("LN") and not model.cfg.final_rms:
        resid = resid - resid.mean(-1, keepdim=True)
    return resid / (resid.square().mean(-1, keepdim=True) + epsilon).sqrt()


def naive_logits(model: HookedTransformer, resid: Tensor, *, affine: bool = True) -> Tensor:
    """Logits of residuals from the weights alone."""
    rows = normalized(model, resid)
    if affine and model.cfg.normalization_type in ("LN", "RMS"):
        rows = rows * model.ln_final.w + getattr(model.ln_final, "b", 0)
    logits = rows @ model.unembed.W_U + model.unembed.b_U
    cap = model.cfg.output_logits_soft_cap
    return cap * (logits / cap).tanh() if cap > 0 else logits


def streams(model: HookedTransformer, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The model's logits, and the residual stream between blocks `[point, batch, pos, d_model]`."""
    logits, cache = model.run_with_cache(tokens)
    found = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(model.cfg.n_layers)]
    return logits, torch.stack([*found, cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]])


def read(model: HookedTransformer, *args: object, **options: object) -> Tensor:
    """Log-probabilities of every token, `[point, batch, pos, d_vocab]`, as the lens reads them."""
    return li.logit_lens(model, *args, watch=range(D_VOCAB), **options).watched_log_prob


def test_the_lens_is_the_models_own_readout(model):
    logits, resid = streams(model, TOKENS)
    trajectory = li.logit_lens(model, TOKENS, watch=range(D_VOCAB))
    close(trajectory.watched_log_prob, naive_logits(model, resid).log_softmax(-1))
    close(trajectory.watched_log_prob[-1], logits.log_softmax(-1))
    close(trajectory.top_logits[..., 0], naive_logits(model, resid).amax(-1))
    plain = read(model, TOKENS, norm="pre_affine")
    close(plain, naive_logits(model, resid, affine=False).log_softmax(-1))


def test_the_hooks_of_a_patch_write_the_next_token(model):
    table, resid = model.embed.W_E, streams(model, TOKENS)[1][1, :, :-1]
    written = table[TOKENS[:, 1:]]
    expected = naive_logits(model, resid).softmax(-1) @ table
    length = resid.norm(dim=-1, keepdim=True) / written.norm(dim=-1, keepdim=True)
    patched = {
        "interpolate": 0.6 * resid + 0.4 * written,
        "add": resid + 0.7 * length * written,
        "correct": resid + 0.5 * (written - expected),
    }
    for name, patch in PATCHES.items():

        def write(tensor, hook, name=name):
            return torch.cat([patched[name], tensor[:, -1:]], dim=1)

        found = model.run_with_hooks(TOKENS, fwd_hooks=patch.fwd_hooks(model, TOKENS))
        naive = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_resid_pre", write)])
        close(found, naive)
        with model.hooks(fwd_hooks=patch.fwd_hooks(model, TOKENS)):
            close(read(model, TOKENS)[-1], naive.log_softmax(-1))


def test_texts_and_caches_are_read_as_tokens_are(plain):
    texts = ["Other times, when people say", "plasma"]
    together = read(plain, texts)
    for row, text in enumerate(texts):
        tokens = plain.to_tokens(text)
        alone = read(plain, tokens)
        close(together[:, row : row + 1, : tokens.shape[1]], alone)
        _, cache = plain.run_with_cache(tokens)
        close(read(plain, cache, tokens=tokens), alone)
        close(read(plain, cache.remove_batch_dim(), tokens=tokens), alone)
    with pytest.raises(ValueError, match="pass them as tokens="):
        li.logit_lens(plain, cache)


def test_the_side_on_which_the_tokenizer_pads_changes_nothing():
    model, texts = hooked(), ["plasma", "Other times, when people say"]
    right = li.logit_lens(model, texts)
    model.tokenizer.padding_side = "left"
    left = li.logit_lens(model, texts)
    close(left.entropy[:, left.mask], right.entropy[:, right.mask])


def test_padding_on_either_side_changes_nothing(plain):
    row = TOKENS[:1, :4]
    padded = torch.cat([torch.full((1, 3), 2), row], dim=1)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    close(read(plain, padded, attention_mask=mask), read(plain, row))
    patch = PATCHES["add"]
    hooks = patch.fwd_hooks(plain, padded, attention_mask=mask)
    found = plain.run_with_hooks(padded, fwd_hooks=hooks, attention_mask=mask)
    close(found[:, 3:], plain.run_with_hooks(row, fwd_hooks=patch.fwd_hooks(plain, row)))


def test_points_inside_blocks_are_read_where_there_are_any(models):
    model = models["RMS"]
    _, cache = model.run_with_cache(TOKENS)
    found = read(model, TOKENS, points=["0_mid"])
    close(found[0], naive_logits(model, cache["blocks.0.hook_resid_mid"]).log_softmax(-1))
    with pytest.raises(ValueError, match=r"HookedTransformer has no blocks\.0\.hook_resid_mid"):
        li.logit_lens(models["parallel"], TOKENS, incl_mid=True)


def test_a_long_text_is_read(models):
    model = hooked(n_ctx=700, n_layers=1)
    tokens = random_tokens(1, 520)
    last = naive_logits(model, streams(model, tokens)[1][:, :, -1:])
    close(read(model, tokens, positions=-1), last.log_softmax(-1))


def test_patches_that_read_a_run_without_a_patch(plain):
    logits, resid = streams(plain, TOKENS)
    surprisal = -logits[:, :-1].log_softmax(-1).gather(-1, TOKENS[:, 1:, None])
    gate = float(surprisal.median()) + 1e-6
    back = li.NextTokenPatch(
        layer=1, strength=1.0, source=li.BackPatch(2), gate=gate, gate_on="output"
    )

    def write(tensor, hook):
        kept = tensor[:, :-1].where(surprisal < gate, resid[-1][:, :-1])
        return torch.cat([kept, tensor[:, -1:]], dim=1)

    expected = plain.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_resid_pre", write)])
    close(plain.run_with_hooks(TOKENS, fwd_hooks=back.fwd_hooks(plain, TOKENS)), expected)


@pytest.fixture(scope="module")
def corpus():
    torch.manual_seed(1)
    return [random_tokens(40) for _ in range(20)]


def test_a_fitted_lens_reads_the_model_that_it_was_fitted_for(models, corpus):
    model = models["LN"]
    lens = li.fit_affine_lens(model, corpus, progress=False)
    _, resid = streams(model, TOKENS)
    mapped = torch.stack([lens(resid[0], 0), lens(resid[1], 1), resid[2]])
    close(read(model, TOKENS, lens=lens), naive_logits(model, mapped).log_softmax(-1))
    quality = li.lens_quality(model, lens, corpus[:4], progress=False)
    means = li.lens_over(model, corpus[:4], lens=lens, positions=slice(1, None), progress=False)
    assert quality.readings["fitted"].means("kl_final").tolist() == means.means("kl_final").tolist()
    assert means.means("kl_final")[0] < quality.readings["raw"].means("kl_final")[0]
    with pytest.raises(ValueError, match="fit one with fit_affine_lens"):
        li.logit_lens(models["tied"], TOKENS, lens=lens)


def test_means_over_texts_are_means_of_readings(plain, corpus):
    texts = corpus[:3]
    means = li.lens_over(plain, texts, progress=False).means("entropy")
    expected = torch.stack([li.logit_lens(plain, text).entropy.mean((1, 2)) for text in texts])
    close(torch.from_numpy(means), expected.mean(0))


def test_a_bridge_of_the_same_weights_agrees():
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    bridge = tiny_bridge("gpt2")
    model = hooked(n_layers=3, d_model=32, n_heads=4, d_mlp=128, act_fn="gelu_new")
    weights = convert_gpt2_weights(tiny_model("gpt2"), model.cfg)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith(("mask", "IGNORE", "b_U")) for name in missing)
    model.unembed.b_U.zero_()
    text = "Sometimes, when people say plasma"
    close(read(model, text), read(bridge, text))
    for patch in PATCHES.values():
        found, expected = (
            each.run_with_hooks(TOKENS, fwd_hooks=patch.fwd_hooks(each, TOKENS))
            for each in (model, bridge)
        )
        close(found, expected)


def test_processed_weights_are_read_as_they_are_then():
    model = hooked()
    read(model, TOKENS)
    before = model(TOKENS).log_softmax(-1)
    model.process_weights_()
    assert model.cfg.normalization_type == "LNPre"
    logits, resid = streams(model, TOKENS)
    found = read(model, TOKENS)
    close(found, naive_logits(model, resid).log_softmax(-1))
    close(found[-1], logits.log_softmax(-1))
    close(found[-1], before, atol=1e-6)
