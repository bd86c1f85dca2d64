"""load_model of models that are in memory: dtypes, devices, adapters and tokenizers."""

import http.server
import subprocess
import sys
import textwrap
import threading

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    GPT2ForSequenceClassification,
    GPT2Model,
    PreTrainedTokenizerFast,
)

from lens_interventions import load_model, logit_lens
from lens_interventions.model.kinds import weight_dtype
from tests.support.tiny import tiny_bridge, tiny_model, tiny_tokenizer

TOKENS = torch.arange(4, 12)[None]


@pytest.mark.usefixtures("no_network")
def test_a_model_in_memory_with_options_of_transformer_lens():
    bridge = load_model(
        hf_model=tiny_model("llama"), tokenizer=tiny_tokenizer(), dtype=torch.float64, n_ctx=32
    )
    torch.testing.assert_close(bridge(TOKENS), tiny_bridge("llama")(TOKENS), rtol=0, atol=0)
    assert bridge.cfg.model_name == "LlamaForCausalLM"
    assert bridge.cfg.n_ctx == 32
    assert not bridge.training


@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("asked", [None, torch.float32, torch.float16])
def test_a_model_in_memory_has_the_dtype_asked_for_or_its_own(own, asked):
    model = tiny_model("llama").to(own)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    bridge = load_model(hf_model=model, tokenizer=tiny_tokenizer(), dtype=asked, device="cpu")
    expected = asked or own
    assert bridge.cfg.dtype == weight_dtype(bridge) == bridge(TOKENS).dtype == expected
    assert {parameter.dtype for parameter in bridge.parameters()} == {expected}
    # Rounded to half precision, they would turn far positions by other angles.
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_model_in_memory_that_cannot_be_loaded_is_as_it_was(monkeypatch, dtype):
    model = tiny_model("llama").float()
    attention = model.config._attn_implementation
    assert attention != "eager"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    buffers = dict(model.named_buffers())
    assert "model.rotary_emb.inv_freq" in buffers  # and not in the state dict
    # What a move does: it puts new tensors into the places of buffers.
    monkeypatch.setattr(model, "to", lambda _device: model._apply(torch.clone))
    with pytest.raises(ValueError, match="tokenizer="):
        load_model(hf_model=model, dtype=dtype, device="cpu")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert dict(model.named_buffers()).keys() == buffers.keys()
    assert all(found is buffers[name] for name, found in model.named_buffers())
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("arch", ["llama", "gpt2", "phi3"])
def test_a_model_in_memory_whose_load_is_stopped_can_be_loaded_again(monkeypatch, arch):
    model = tiny_model(arch)
    before, parts = model(TOKENS).logits, list(model.named_modules())
    options = {"hf_model": model, "tokenizer": tiny_tokenizer(), "device": "cpu"}
    make = TransformerBridge.__init__

    def make_and_stop(*args, **kwargs):
        make(*args, **kwargs)
        assert list(model.named_modules()) != parts
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(TransformerBridge, "__init__", make_and_stop)
        with pytest.raises(KeyboardInterrupt):
            load_model(**options)
    assert list(model.named_modules()) == parts
    torch.testing.assert_close(model(TOKENS).logits, before, rtol=0, atol=0)
    torch.testing.assert_close(load_model(**options)(TOKENS), tiny_bridge(arch)(TOKENS))


def test_a_model_that_is_in_a_bridge_is_refused():
    """A cell that is run again would make a bridge in which hooks of the first one act."""
    options = {"hf_model": tiny_model("gpt2"), "tokenizer": tiny_tokenizer(), "device": "cpu"}
    bridge = load_model(**options)
    before = bridge(TOKENS)
    with pytest.raises(ValueError, match=r"is in a bridge already.* use that bridge"):
        load_model(**options)
    assert torch.equal(bridge(TOKENS), before)


def test_weights_of_a_model_in_memory_that_differ_in_dtype_stay_so_unless_one_is_asked_for():
    model = tiny_model("llama").bfloat16()
    model.model.norm.float()
    bridge = load_model(hf_model=model, tokenizer=tiny_tokenizer(), device="cpu")
    assert model.model.norm.weight.dtype == torch.float32
    assert bridge(TOKENS).isfinite().all()
    model = tiny_model("llama").bfloat16()
    model.lm_head.float()
    with pytest.raises(ValueError, match=r"give dtype= to convert both"):
        load_model(hf_model=model, tokenizer=tiny_tokenizer(), device="cpu")


def test_a_model_in_memory_is_moved_to_the_device_asked_for(monkeypatch):
    moved = []
    for device in (None, "cpu"):
        model = tiny_model("llama")
        monkeypatch.setattr(model, "to", lambda device: moved.append(device))
        bridge = load_model(hf_model=model, tokenizer=tiny_tokenizer(), device=device)
        assert torch.device(bridge.cfg.device) == model.device
    assert moved == ["cpu"]


@pytest.mark.parametrize("how", ["as transformers says", "by its weights"])
def test_quantized_weights_are_not_converted(how):
    """They would lose their scales, without an error."""
    model = tiny_model("llama").bfloat16()
    if how == "by its weights":
        weight = model.model.layers[0].mlp.up_proj.weight
        weight.data = weight.data.to(torch.float8_e4m3fn)
    else:
        model.is_quantized = True
    with pytest.raises(ValueError, match="weights are quantized"):
        load_model(hf_model=model, tokenizer=tiny_tokenizer(), dtype=torch.float32)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_weights_that_are_not_there_are_refused():
    """Offloaded by accelerate, or in a module of torch's own quantization."""
    offloaded = tiny_model("llama").float()
    cpu_offload(offloaded, execution_device="cpu")
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight is on torch's meta device"):
        load_model(hf_model=offloaded, tokenizer=tiny_tokenizer())
    later = load_model(hf_model=tiny_model("llama").float(), tokenizer=tiny_tokenizer())
    cpu_offload(later.original_model, execution_device="cpu")
    with pytest.raises(NotImplementedError, match="is offloaded"):
        logit_lens(later, [5, 6, 7])
    quantized = torch.ao.quantization.quantize_dynamic(
        tiny_model("llama").float(), {torch.nn.Linear}, dtype=torch.qint8
    )
    with pytest.raises(ValueError, match="weights of Linear are quantized"):
        load_model(hf_model=quantized, tokenizer=tiny_tokenizer())


def lora(arch, targets):
    """A tiny model with low-rank adapters that change it a lot."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    return get_peft_model(tiny_model(arch), config).double().eval()


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize(
    ("arch", "targets"), [("llama", ["q_proj", "down_proj"]), ("gpt2", ["c_attn"])]
)
def test_adapters_are_read_once_they_are_merged(arch, targets):
    adapted = lora(arch, targets)
    expected = adapted(TOKENS).logits.detach()
    for unmerged in (adapted, adapted.base_model.model):
        with pytest.raises(ValueError, match=r"pass hf_model=model\.merge_and_unload"):
            load_model(hf_model=unmerged, tokenizer=tiny_tokenizer())
    bridge = load_model(
        hf_model=adapted.merge_and_unload(), tokenizer=tiny_tokenizer(), dtype=torch.float64
    )
    # TransformerLens's attention takes the softmax in float32.
    torch.testing.assert_close(bridge(TOKENS), expected, rtol=0, atol=1e-4)
    assert (tiny_bridge(arch)(TOKENS) - expected).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize(
    ("arch", "targets"),
    [("llama", ["q_proj"]), ("gpt2", ["c_attn"]), ("gpt_neox", ["query_key_value"])],
)
def test_adapters_beside_a_model_in_a_directory_are_refused(tmp_path, arch, targets):
    tiny_model(arch).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    lora(arch, targets).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not merged, .* pass hf_model=model\.merge_and_unload"):
        load_model(tmp_path)


@pytest.mark.parametrize("classifier", [GPT2Model, GPT2ForSequenceClassification])
def test_a_model_without_an_unembedding_is_refused(classifier):
    model = classifier(tiny_model("gpt2").config)
    message = f"{classifier.__name__} has no unembedding.+ForCausalLM"
    with pytest.raises(ValueError, match=message):
        load_model(hf_model=model, tokenizer=tiny_tokenizer())


def test_a_tokenizer_that_was_made_in_memory_needs_no_name():
    known = tiny_tokenizer()
    made = PreTrainedTokenizerFast(
        tokenizer_object=known.backend_tokenizer, bos_token="<s>", pad_token="<pad>"
    )
    bridge = load_model(hf_model=tiny_model("llama"), tokenizer=made)
    text = "the people say plasma"
    assert bridge.to_tokens(text).tolist() == [known(text)["input_ids"]]
    assert bridge.tokenizer.pad_token_id == known.pad_token_id
    assert bridge.tokenizer.name_or_path == made.name_or_path


@pytest.mark.usefixtures("no_network")
def test_a_model_in_memory_without_a_tokenizer_takes_that_of_its_directory(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    bridge = load_model(hf_model=model, device="cpu")
    assert bridge.to_str_tokens("plasma") == ["<s>", "plasma"]


def test_a_model_in_memory_without_a_tokenizer_fetches_that_of_its_name(directory, tmp_path):
    class Hub(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            return str(directory / path.rpartition("/")[2])

        def end_headers(self):
            self.send_header("ETag", f'"{self.path}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("X-Error-Code", "EntryNotFound")
            super().end_headers()

        def log_message(self, *_):
            pass

    script = textwrap.dedent(
        """
        from lens_interventions import load_model
        from tests.support.tiny import tiny_model
        bridge = load_model("owner/model", hf_model=tiny_model("llama"), device="cpu")
        print(bridge.to_str_tokens("plasma"))
        """
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        shown = subprocess.check_output(
            [sys.executable, "-c", script],
            env={"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": endpoint},
            text=True,
        )
        server.shutdown()
    assert shown == "['<s>', 'plasma']\n"


@pytest.mark.parametrize("name", [None, "owner/model"])
def test_a_model_in_memory_without_any_tokenizer_is_refused(name):
    with pytest.raises(ValueError, match=r"no tokenizer was given .*: pass tokenizer="):
        load_model(name, hf_model=tiny_model("llama"))
