"""What a HookedTransformer is refused for, and how it is left.

`make compat` runs these tests beside TransformerLens 3.9.
"""

import inspect

import pytest
import torch
from torch import Tensor

import lens_interventions as li
from tests.support.clean import left_as_found
from tests.support.exact import close
from tests.support.hooked import hooked
from tests.support.tiny import D_VOCAB

pytestmark = [
    pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated"),
    pytest.mark.usefixtures("without_gradients"),
]

TOKENS = torch.tensor([[5, 9, 33, 71, 20, 44, 8], [90, 6, 6, 51, 12, 77, 13]])
PATCH = li.NextTokenPatch(layer=1, strength=0.7, mode="add", scale="norm")
# Everything else that takes a bridge is for bridges alone.
READS = {"chat_tokens", "fit_affine_lens", "lens_over", "lens_quality", "logit_lens"}
FUNCTIONS = {name: getattr(li, name) for name in dir(li) if inspect.isfunction(getattr(li, name))}
TAKES_BRIDGE = {
    name
    for name, function in FUNCTIONS.items()
    if "bridge" in inspect.signature(function).parameters
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return hooked()


@pytest.fixture
def plain(model):
    with left_as_found(model) as shared:
        yield shared


def test_hooks_on_other_tokens_are_refused(plain):
    hooks = PATCH.fwd_hooks(plain, TOKENS)
    other = TOKENS.clone()
    other[1, 3] = 99
    with pytest.raises(ValueError, match=r"column 3 text 1 has another embedding .* id 51"):
        plain.run_with_hooks(other, fwd_hooks=hooks)
    with pytest.raises(ValueError, match="make hooks for those tokens"):
        plain.run_with_hooks(TOKENS[:, :4], fwd_hooks=hooks)


@pytest.mark.parametrize("name", sorted(TAKES_BRIDGE - READS))
@pytest.mark.usefixtures("as_users_run")
def test_what_needs_a_bridge_says_so_at_its_start(plain, name):
    needed = [
        parameter.name
        for parameter in inspect.signature(FUNCTIONS[name]).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    arguments = dict.fromkeys(needed) | {"bridge": plain}
    words = "expects a TransformerBridge, got a HookedTransformer, which can only be read"
    with pytest.raises(TypeError, match=words):
        FUNCTIONS[name](**arguments)


@pytest.mark.usefixtures("as_users_run")
def test_experiments_need_a_bridge(plain):
    for model in (plain, lambda: plain):
        with pytest.raises(TypeError, match="an experiment expects a TransformerBridge"):
            li.experiments.copying(model)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"attention_dir": "bidirectional"}, NotImplementedError, "attends to later tokens"),
        ({"d_vocab_out": 5}, ValueError, "reads 112 tokens and has logits for 5"),
    ],
)
def test_models_without_next_tokens_are_refused(config, error, message):
    model = hooked(**config)
    for call in (li.logit_lens, PATCH.fwd_hooks):
        with pytest.raises(error, match=message):
            call(model, TOKENS)


def test_a_readout_that_is_not_the_models_is_refused():
    model = hooked()
    model.unembed.register_forward_hook(lambda _module, _args, logits: logits.flip(-1))
    with pytest.raises(ValueError, match="HookedTransformer are not ln_final -> unembed"):
        li.logit_lens(model, TOKENS)


def test_embeddings_that_are_normed_are_written_by_the_unembedding():
    model = hooked(post_embedding_ln=True)
    read = li.logit_lens(model, TOKENS, watch=range(D_VOCAB)).watched_log_prob
    close(read[-1], model(TOKENS).log_softmax(-1))
    with pytest.raises(NotImplementedError, match="use the unembedding"):
        PATCH.fwd_hooks(model, TOKENS)
    assert li.NextTokenPatch(layer=1, strength=0.5, embedding="W_U").fwd_hooks(model, TOKENS)


def test_a_reading_that_fails_leaves_nothing_behind(plain):
    def fail(resid: Tensor, layer: int) -> Tensor:
        raise RuntimeError("broken")

    side = plain.tokenizer.padding_side
    with pytest.raises(RuntimeError, match="broken"):
        li.logit_lens(plain, TOKENS, lens=fail)

    def poison(tensor, hook):
        raise RuntimeError("poisoned")

    with plain.hooks(fwd_hooks=[("blocks.0.hook_resid_pre", poison)]):
        with pytest.raises(RuntimeError, match="poisoned"):
            li.logit_lens(plain, TOKENS)
        assert len(plain.hook_dict["blocks.0.hook_resid_pre"].fwd_hooks) == 1
    assert plain.training  # as they come: there is no dropout
    assert plain.tokenizer.padding_side == side
