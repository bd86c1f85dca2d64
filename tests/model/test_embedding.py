"""The token embedding as the model feeds it."""

import dataclasses
import functools

import pytest
import torch
from transformer_lens.utilities import get_act_name

import lens_interventions as li
from lens_interventions.model.embedding import embedding
from tests.support.pages import ROOT
from tests.support.tiny import shared_bridge, tiny_bridge

TOKENS = torch.tensor([[5, 9, 33, 71, 20]])


def test_embedding_is_what_the_model_feeds(bridge):
    _, cache = bridge.run_with_cache(TOKENS, names_filter="hook_embed")
    fed = cache[get_act_name("embed")]
    torch.testing.assert_close(embedding(bridge)(TOKENS), fed.detach(), rtol=1e-9, atol=0)


def test_a_scaled_embedding_is_not_the_weight():
    bridge = shared_bridge("gemma2")
    assert embedding(bridge).scale == pytest.approx(32**0.5)


def test_centred_vectors_lack_what_tokens_have_in_common():
    for architecture in ("llama", "gemma2"):  # which scales
        plain = embedding(shared_bridge(architecture))
        centred = dataclasses.replace(plain, centred=True)
        every = torch.arange(len(plain.weight))
        vectors = plain(every) - plain(every).mean(0)
        close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)
        close(centred(every), vectors)
        chances = torch.rand(2, len(every)).double().softmax(-1)
        close(centred.mean(chances), chances @ vectors)
        assert not centred.average.any()
        assert float(centred.typical_length) == pytest.approx(float(vectors.norm(dim=-1).median()))
        assert float(plain.typical_length) == pytest.approx(
            float(plain(every).norm(dim=-1).median())
        )


@pytest.mark.parametrize("scale", ["raw", "norm"])
def test_the_average_of_centred_vectors_writes_zeros_in_half_precision_too(scale):
    bridge = tiny_bridge("llama", dtype=torch.float16)
    patch = li.NextTokenPatch(
        layer=1,
        strength=0.5,
        mode="add",
        scale=scale,
        embedding="W_E_centred",
        source="average",
    )
    none, found = li.teacher_forced_log_probs(bridge, TOKENS, [None, patch])
    assert torch.equal(found[..., 1:], none[..., 1:])


def test_the_mean_row_of_the_default_model_is_as_long_as_the_pages_say(default_bridge):
    found = embedding(default_bridge)
    assert f"{float(found.average.norm() / found.typical_length):.2f}" == "0.69"
    for page in ("docs/concepts/patch.md", "docs/findings/pretrained.md"):
        assert "0.69 times as long as a typical row" in " ".join((ROOT / page).read_text().split())


def test_a_transformed_embedding_is_refused():
    bridge = tiny_bridge("llama")
    bridge.add_perma_hook("hook_embed", lambda tensor, hook: tensor.cumsum(-1))
    with pytest.raises(NotImplementedError, match="embedding='W_U'"):
        embedding(bridge)


def test_what_has_no_factor_to_measure_is_told_apart():
    bridge = tiny_bridge("llama")
    weight = bridge.original_model.model.embed_tokens.weight
    bridge.original_model.train()
    with pytest.raises(ValueError, match=r"training mode.* call bridge\.eval\(\)"):
        embedding(bridge)
    bridge.original_model.eval()
    weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="W_E is not finite"):
        embedding(bridge)
    weight.data.zero_()
    assert not embedding(bridge)(TOKENS).any()
