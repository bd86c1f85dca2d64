"""Models from GGUF files: converted once, and the same model as before."""

import json

import gguf
import numpy as np
import pytest
import torch

from lens_interventions import load_model
from lens_interventions.model._gguf import LOCK, _convert, gguf_model
from lens_interventions.model.user_cache import CACHE_VARIABLE
from tests.support.tiny import tiny_bridge, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("user_cache")

ARCH = "qwen2"


def write_gguf(file, *, seed=0):
    """A tiny Qwen 2 in float32, as llama.cpp's converter writes one."""
    model = tiny_model(ARCH, dtype=torch.float32, seed=seed)
    config, tokenizer = model.config, tiny_tokenizer()
    writer = gguf.GGUFWriter(file, ARCH)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])

    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].get))
    writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight", ".bias")),
            np.ascontiguousarray(tensor.numpy()),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "tiny-qwen.gguf")


@pytest.mark.parametrize("as_path", [True, False])
def test_the_model_is_the_one_in_the_file(file, as_path):
    bridge = load_model(file if as_path else str(file), device="cpu")
    tokens = torch.arange(4, 24)[None]
    expected = tiny_bridge(ARCH, dtype=torch.float32)(tokens)
    torch.testing.assert_close(bridge(tokens), expected, rtol=0, atol=0)
    assert bridge.cfg.model_name == "tiny-qwen"
    assert not bridge.training
    text = "the quick brown fox"
    assert bridge.to_tokens(text, prepend_bos=False).tolist() == [
        tiny_tokenizer()(text, add_special_tokens=False).input_ids
    ]


def test_known_by_content(file, tmp_path, user_cache):
    first = gguf_model(file)
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert gguf_model(file) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written

    file.unlink()
    second = gguf_model(write_gguf(file, seed=1))
    assert {entry.name for entry in user_cache.iterdir()} == {first.name, second.name, LOCK}
    assert len({first.name, second.name}) == 2


@pytest.mark.parametrize("damage", ["shortened", "something else", "unknown architecture"])
def test_file_that_cannot_be_converted(damage, file, user_cache):
    if damage == "shortened":
        file.write_bytes(file.read_bytes()[:-2000])
    elif damage == "something else":
        file.write_text("weights")
    else:
        file.write_bytes(file.read_bytes().replace(b"qwen2", b"qwerz"))
    with pytest.raises(ValueError, match=r"tiny-qwen\.gguf cannot be converted: .*whole GGUF"):
        load_model(file)
    assert {entry.name for entry in user_cache.iterdir()} == {LOCK}


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no GGUF file .*absent\.gguf"):
        load_model(tmp_path / "absent.gguf")


def test_no_room_is_told_before_the_conversion(file, user_cache, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=rf"MB are needed.*set {CACHE_VARIABLE}"):
        load_model(file)
    assert {entry.name for entry in user_cache.iterdir()} == {LOCK}


def test_the_file_is_read_once_and_gguf_is_left_as_it_was(file, monkeypatch):
    class Counted(gguf.GGUFReader):
        def __init__(self, *arguments):
            read.append(arguments)
            super().__init__(*arguments)

    read = []
    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    _convert(file, file.parent / "converted")
    assert len(read) == 1
    assert gguf.GGUFReader is Counted
