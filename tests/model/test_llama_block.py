"""A block in few calls computes what transformers' module does, and stands in for no other."""

import pytest
import torch
from torch.nn.utils import parametrize, prune
from transformers import DynamicCache, Ministral3Config, MistralConfig
from transformers.models.ministral3.modeling_ministral3 import Ministral3DecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer

import lens_interventions as li
from lens_interventions.model.bypass import Unwrapping
from lens_interventions.model.capabilities import few_tokens
from lens_interventions.model.llama_block import LlamaBlock, has_parts
from tests.support.architectures import LENS_ARCHITECTURES
from tests.support.clean import left_as_found
from tests.support.tiny import random_tokens, shared_bridge, tiny_bridge, tiny_model

# The blocks of tiny models that compute what Llama's do. The second of SmolLM3 has no rotary
# positions; and the gated MLPs of others come with other norms, multipliers or partial rotations.
ALIKE = {"llama": {0, 1, 2}, "mistral": {0, 1, 2}, "qwen2": {0, 1, 2}, "smollm3": {0, 2}}

TOKENS = torch.tensor([[5, 17, 4, 44, 17, 60, 9]])


def stood_in_for(bridge):
    with Unwrapping(bridge)():
        return {i for i, block in enumerate(bridge.blocks) if isinstance(block, LlamaBlock)}


@pytest.mark.parametrize("arch", LENS_ARCHITECTURES)
def test_it_stands_in_for_blocks_that_compute_the_same(arch):
    bridge = shared_bridge(arch, torch.float32)
    with left_as_found(bridge):
        assert stood_in_for(bridge) == ALIKE.get(arch, set())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_stands_in_for_no_block_in_another_precision(dtype):
    assert stood_in_for(shared_bridge("llama", dtype)) == set()


@torch.no_grad()
def test_it_stands_in_for_no_block_under_autocast():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stood_in_for(bridge) == set()
    unwrapped = Unwrapping(bridge)
    with unwrapped():
        assert isinstance(bridge.blocks[0], LlamaBlock)
    with torch.autocast("cpu", dtype=torch.bfloat16), unwrapped():
        assert not isinstance(bridge.blocks[0], LlamaBlock)


@torch.no_grad()
def test_a_large_update_at_one_position_hides_no_difference():
    """The block without rotary positions computes the same at the first position alone."""
    bridge = tiny_bridge("smollm3", dtype=torch.float32)
    mlp = bridge.blocks[1]._modules["_original_component"].mlp._modules["_original_component"]
    _, cache = bridge.run_with_cache(few_tokens(bridge), names_filter="blocks.1.mlp.hook_in")
    only_first = torch.tensor([30.0, -30.0, -30.0, -30.0])
    direction = torch.linalg.pinv(cache["blocks.1.mlp.hook_in"][0]) @ only_first
    for name in ("gate_proj", "up_proj"):
        mlp._modules[name]._modules["_original_component"].weight[0] = direction
    mlp._modules["down_proj"]._modules["_original_component"].weight[:, 0] *= 100
    assert stood_in_for(bridge) == {0, 2}


def test_attention_that_is_told_its_positions_is_told_apart():
    """Ministral 3 scales queries from some position on, at which few trials arrive."""
    sizes = LENS_ARCHITECTURES["llama"] | {"vocab_size": 50}
    assert has_parts(MistralDecoderLayer(MistralConfig(**sizes), 0))
    assert not has_parts(Ministral3DecoderLayer(Ministral3Config(**sizes), 0))


@torch.no_grad()
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_it_computes_what_the_module_does_step_by_step(arch):
    """Three rows and then two more, padded on the left in one text, against transformers alone."""
    model = tiny_model(arch, dtype=torch.float32)
    block = model.model.layers[1]
    assert has_parts(block)
    short, resid = LlamaBlock(block), torch.randn(2, 5, 32, generator=torch.manual_seed(0))
    angles = model.model.rotary_emb(resid, position_ids=torch.tensor([range(5), [0, 0, 0, 1, 2]]))
    visible = torch.ones(5, 5).tril().repeat(2, 1, 1, 1) > 0
    visible[1, :, 2:, :2] = False
    mask = torch.zeros(2, 1, 5, 5).masked_fill_(~visible, torch.finfo(torch.float32).min)
    outputs = []
    for run in (block, short):
        cache, parts = DynamicCache(), []
        for rows in (slice(3), slice(3, 5)):
            options = {
                "attention_mask": mask[:, :, rows, : rows.stop],
                "position_embeddings": tuple(each[:, rows] for each in angles),
                **li.model.attention_cache.as_argument(shared_bridge(arch), cache),
            }
            parts.append(run(resid[:, rows], **options))
        outputs.append(torch.cat(parts, dim=1))
    # Float32 sums in another order.
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-5)


def test_gradients_go_through_it():
    model = tiny_model("llama", dtype=torch.float32)
    block, found = model.model.layers[0], []
    angles = model.model.rotary_emb(torch.zeros(1, 4, 32), position_ids=torch.arange(4)[None])
    mask = torch.full((1, 1, 4, 4), torch.finfo(torch.float32).min).triu(1)
    for run in (block, LlamaBlock(block)):
        resid = torch.randn(1, 4, 32, generator=torch.manual_seed(0)).requires_grad_()
        run(resid, attention_mask=mask, position_embeddings=angles).square().sum().backward()
        found.append(resid.grad)
    # Float32 sums in another order, of gradients of about 10.
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("part", ["mlp", "input_layernorm", "self_attn"])
def test_a_hook_of_torch_inside_a_module_is_called(part):
    """Also one on the module of transformers, which its component calls."""
    bridge, calls = tiny_bridge("llama", dtype=torch.float32), []
    unwrapped = Unwrapping(bridge)
    component = bridge.blocks[1]._modules["_original_component"]._modules[part]
    for module in (component, component._modules["_original_component"]):
        handle = module.register_forward_hook(lambda *_: calls.append(part))
        with unwrapped():
            assert not isinstance(bridge.blocks[1], LlamaBlock)
            bridge(TOKENS)
        handle.remove()
    assert calls == [part] * 2
    assert stood_in_for(bridge) == {0, 1, 2}


@torch.no_grad()
def test_weights_that_change_between_tokens_are_read():
    """By a new storage, a new parameter and a new forward of a product."""
    bridge = tiny_bridge("llama", dtype=torch.float32)
    unwrapped = Unwrapping(bridge)
    mlp = bridge.blocks[1]._modules["_original_component"].mlp._modules["_original_component"]
    down = mlp._modules["down_proj"]._modules["_original_component"]

    def change_data():
        down.weight.data = -down.weight.data

    def change_parameter():
        down.weight = torch.nn.Parameter(2 * down.weight)

    def change_forward():
        vars(down)["forward"] = torch.nn.Linear(48, 32).forward

    for change in (lambda: None, change_data, change_parameter, change_forward):
        change()
        with unwrapped():
            assert isinstance(bridge.blocks[1], LlamaBlock)
            found = bridge(TOKENS)
        # The components do the same in another order, in float32.
        torch.testing.assert_close(found, bridge(TOKENS), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_product_that_becomes_another_module_is_run():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    unwrapped = Unwrapping(bridge)
    with unwrapped():
        assert isinstance(bridge.blocks[1], LlamaBlock)
    mlp = bridge.blocks[1]._modules["_original_component"].mlp._modules["_original_component"]
    down = mlp._modules["down_proj"]._modules["_original_component"]
    parametrize.register_parametrization(down, "weight", torch.nn.Tanh())
    with unwrapped():
        found = bridge(TOKENS)
    # The components do the same in another order, in float32.
    torch.testing.assert_close(found, bridge(TOKENS), rtol=0, atol=1e-4)
    assert stood_in_for(bridge) == {0, 2}


def test_a_pruned_product_is_run():
    bridge = tiny_bridge("llama", dtype=torch.float32)
    mlp = bridge.blocks[1]._modules["_original_component"].mlp._modules["_original_component"]
    prune.l1_unstructured(mlp._modules["down_proj"]._modules["_original_component"], "weight", 0.5)
    assert stood_in_for(bridge) == {0, 2}


def test_generated_tokens_are_those_of_a_clean_run():
    """Greedy tokens under a patch, against a run of the bridge on all of the text."""
    bridge = tiny_bridge("qwen2", dtype=torch.float32)
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    found = li.generate(bridge, random_tokens(2, 6), [None, patch], max_new_tokens=12)
    for row in range(4):
        text = torch.cat([found.prompts[row], found.tokens[row]])[None]
        for end in range(6, 18):
            hooks = patch.fwd_hooks(bridge, text[:, :end]) if row > 1 else []
            logits = bridge.run_with_hooks(text[:, :end], fwd_hooks=hooks)
            assert int(logits[0, -1].argmax()) == int(text[0, end]), (row, end)
