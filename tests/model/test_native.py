"""Networks that TransformerLens makes from its own config, without transformers."""

import pytest
import torch
from torch import Tensor
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

import lens_interventions as li
from tests.support.architectures import N_CTX
from tests.support.clean import left_as_found
from tests.support.exact import close
from tests.support.tiny import D_VOCAB

pytestmark = [
    pytest.mark.filterwarnings("ignore:TransformerLensNative does not run two copies"),
    pytest.mark.filterwarnings("ignore:decoding with a cache is not exact"),
    pytest.mark.usefixtures("without_gradients"),
]

# What differs from learned positions, LayerNorm and a plain MLP.
CONFIGS = {
    "GPT-2's parts": {},
    "attention only": {"attn_only": True, "normalization_type": None},
    "Llama's parts": {
        "positional_embedding_type": "rotary",
        "normalization_type": "RMS",
        "gated_mlp": True,
        "act_fn": "silu",
        "n_key_value_heads": 1,
    },
}
TOKENS = torch.tensor([[5, 9, 33, 71, 20, 44, 8], [90, 6, 6, 51, 12, 77, 13]])
PATCH = li.NextTokenPatch(layer=1, strength=0.4)


@pytest.fixture(params=CONFIGS)
def network(request):
    torch.manual_seed(0)
    config = {"d_model": 16, "d_head": 8, "n_heads": 2, "n_layers": 2, "d_mlp": 24, "eps": 1e-5}
    config |= {"n_ctx": N_CTX, "d_vocab": D_VOCAB, "act_fn": "gelu"} | CONFIGS[request.param]
    made = TransformerBridge.boot_native(TransformerBridgeConfig(**config), dtype=torch.float64)
    for parameter in made.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    with left_as_found(made.eval()) as shared:
        yield shared


def patched_logits(network: TransformerBridge, tokens: Tensor) -> Tensor:
    """The prediction after the last token, with every earlier position patched by hand."""

    def write(resid: Tensor, hook: object) -> Tensor:
        written = 0.6 * resid[:, :-1] + 0.4 * network.W_E[tokens[:, 1:]]
        return torch.cat([written, resid[:, -1:]], dim=1)

    hooks = [("blocks.1.hook_resid_pre", write)]
    return network.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1]


def test_the_last_point_of_the_lens_is_the_output(network):
    trajectory = li.logit_lens(network, TOKENS, watch=range(D_VOCAB))
    close(trajectory.watched_log_prob[-1], network(TOKENS).log_softmax(-1))


def test_given_texts_are_predicted_as_hooks_do_it_step_by_step(network):
    found = li.teacher_forced_logits(network, TOKENS, [None, PATCH])
    close(found[0], network(TOKENS))
    steps = [patched_logits(network, TOKENS[:, :stop]) for stop in range(1, TOKENS.shape[1] + 1)]
    close(found[1], torch.stack(steps, dim=1))


def test_it_writes_what_hooks_would_write(network):
    written = TOKENS
    for _ in range(5):
        written = torch.cat([written, patched_logits(network, written).argmax(-1)[:, None]], 1)
    out = li.generate(network, TOKENS, PATCH, max_new_tokens=5)
    torch.testing.assert_close(out.tokens.cpu(), written[:, TOKENS.shape[1] :])
