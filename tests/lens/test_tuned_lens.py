"""Lenses from elsewhere, against files written in their format and their own readouts."""

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import JacobianLens

from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.tuned_lens import load_tuned_lens
from lens_interventions.model.readout import readout
from tests.support.tiny import shared_bridge, tiny_bridge
from tests.support.tuned_checkpoint import write_checkpoint

TOKENS = [5, 17, 40, 22, 63, 9, 31]


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_a_tuned_lens_reads_as_its_library_does(tmp_path, arch):
    bridge = shared_bridge(arch)
    translators = write_checkpoint(tmp_path / "lens", bridge)
    lens = load_tuned_lens(tmp_path / "lens")
    trajectory = logit_lens(bridge, TOKENS, lens=lens)
    _, cache = bridge.run_with_cache(torch.tensor([TOKENS]))
    for layer, translator in enumerate(translators):
        hidden = cache[f"blocks.{layer}.hook_resid_pre"]
        logits = readout(bridge)(hidden + translator(hidden))
        top = logits[0].max(-1)
        assert torch.equal(trajectory.top_ids[layer, 0, :, 0], top.indices)
        # The maps come as float32, the translators were made in float32: no difference is expected.
        torch.testing.assert_close(trajectory.top_logits[layer, 0, :, 0], top.values)
    assert trajectory.settings["lens"].startswith("tuned-lens checkpoint")


def test_a_tuned_lens_is_refused_on_other_weights(tmp_path):
    write_checkpoint(tmp_path / "lens", shared_bridge("llama"))
    lens = load_tuned_lens(tmp_path / "lens")
    with pytest.raises(ValueError, match="was fitted for tiny, 3 layers"):
        logit_lens(tiny_bridge("llama", seed=5), TOKENS, lens=lens)
    write_checkpoint(tmp_path / "unknown", shared_bridge("llama"), unembed_hash=None)
    with pytest.warns(UserWarning, match="does not say which unembedding"):
        lens = load_tuned_lens(tmp_path / "unknown")
    logit_lens(shared_bridge("llama"), TOKENS, lens=lens)
    with pytest.raises(ValueError, match=r"3 layers of width 32 .* 2 layers of width 32"):
        logit_lens(tiny_bridge("llama", num_hidden_layers=2), TOKENS, lens=lens)


def test_a_tuned_lens_is_known_whatever_numpy_is_to_print(tmp_path):
    bridge = shared_bridge("llama")
    write_checkpoint(tmp_path / "lens", bridge)
    lens = load_tuned_lens(tmp_path / "lens")
    for options in (
        {"edgeitems": 30, "linewidth": 1000},
        {"legacy": "1.13"},
        {"floatmode": "fixed"},
        {"sign": "+"},
        {"formatter": {"float_kind": "{:.3f}".format}},
    ):
        with np.printoptions(**options):
            logit_lens(bridge, TOKENS, lens=lens)


def test_what_is_no_checkpoint_is_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_tuned_lens(tmp_path / "empty")
    write_checkpoint(tmp_path / "other", shared_bridge("llama"), lens_type="mlp")
    with pytest.raises(ValueError, match="only 'linear_tuned_lens' can be read"):
        load_tuned_lens(tmp_path / "other")
    write_checkpoint(tmp_path / "deep", shared_bridge("llama"), num_hidden_layers=4)
    with pytest.raises(ValueError, match=r"no '3\.weight'"):
        load_tuned_lens(tmp_path / "deep")
    write_checkpoint(tmp_path / "garbage", shared_bridge("llama"))
    (tmp_path / "garbage" / "params.pt").write_bytes(b"garbage")
    with pytest.raises(ValueError, match="is not a checkpoint of tuned-lens"):
        load_tuned_lens(tmp_path / "garbage")
    (tmp_path / "garbage" / "params.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"garbage is not a checkpoint of tuned-lens: params\.pt"):
        load_tuned_lens(tmp_path / "garbage")
    (tmp_path / "garbage" / "config.json").write_text('{"d_model":')
    with pytest.raises(ValueError, match=r"garbage is not .*: config\.json is not JSON"):
        load_tuned_lens(tmp_path / "garbage")
    (tmp_path / "garbage" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
        load_tuned_lens(tmp_path / "garbage")
    write_checkpoint(tmp_path / "narrow", shared_bridge("llama"))
    state = torch.load(tmp_path / "narrow" / "params.pt")
    torch.save(
        {name: value[:31] if "bias" in name else value for name, value in state.items()},
        tmp_path / "narrow" / "params.pt",
    )
    with pytest.raises(ValueError, match=r"biases of \(31,\)"):
        load_tuned_lens(tmp_path / "narrow")
    with pytest.raises(ValueError, match=r"revision goes with a name .* has one version only"):
        load_tuned_lens(tmp_path / "deep", revision="main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="the hub cannot be reached"):
        load_tuned_lens("no-such-model")


def test_the_jacobian_lens_reads_as_in_transformer_lens():
    bridge = shared_bridge("llama", torch.float32)
    torch.manual_seed(0)
    jacobians = {layer: torch.eye(32) + 0.1 * torch.randn(32, 32) for layer in range(2)}
    lens = JacobianLens(jacobians, n_prompts=1, d_model=32)
    trajectory = logit_lens(bridge, TOKENS, lens=lens)
    theirs = lens.readout(bridge, torch.tensor([TOKENS]), top_k=5)
    for layer in range(2):
        ids = theirs.lens_topk_indices[layer]
        assert torch.equal(trajectory.top_ids[layer + 1, 0], ids)
        # float32 on both sides, products in another order.
        torch.testing.assert_close(
            trajectory.top_logits[layer + 1, 0],
            theirs.lens_topk_values[layer],
            rtol=1e-4,
            atol=1e-4,
        )
    # What enters block 0 has no map and is read as it is.
    raw = logit_lens(bridge, TOKENS)
    assert torch.equal(trajectory.top_ids[0], raw.top_ids[0])
    assert trajectory.settings["lens"] == "Jacobian lens from 1 prompts"


def test_a_jacobian_lens_of_some_layers_says_which():
    bridge = shared_bridge("llama", torch.float32)
    lens = JacobianLens({1: torch.eye(32)}, n_prompts=1, d_model=32)
    with pytest.raises(ValueError, match="1_pre, but for blocks"):
        logit_lens(bridge, TOKENS, lens=lens)
    trajectory = logit_lens(bridge, TOKENS, lens=lens, points=["2_pre"])
    assert trajectory.points == ("2_pre",)
