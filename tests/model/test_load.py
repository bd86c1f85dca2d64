"""load_model by path and by name: offline, refusing code, on devices that are there."""

import http.server
import json
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import huggingface_hub.constants as hub
import pytest
import torch
import transformers.dynamic_module_utils
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from lens_interventions import load_model
from lens_interventions.model import hub as the_hub
from lens_interventions.model.alterations import alteration
from lens_interventions.model.embedded import NAME
from lens_interventions.model.whole_weights import whole_weights
from tests.support.pages import ROOT
from tests.support.tiny import tiny_bridge, tiny_model, tiny_tokenizer

TOKENS = torch.arange(4, 12)[None]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("as_path", [True, False])
def test_local_directory_without_network(directory, as_path):
    bridge = load_model(directory if as_path else str(directory), dtype=torch.float64, device="cpu")
    assert not bridge.training
    torch.testing.assert_close(bridge(TOKENS), tiny_bridge("llama")(TOKENS), rtol=0, atol=0)
    assert bridge.to_str_tokens("plasma") == ["<s>", "plasma"]
    assert not hub.HF_HUB_OFFLINE


def test_a_directory_has_one_name_whatever_its_path(directory, monkeypatch):
    monkeypatch.chdir(directory)
    for path in (directory, ".", directory / ".." / directory.name, f"{directory}/"):
        assert load_model(path, device="cpu").cfg.model_name == "llama"


def test_a_directory_is_not_taken_for_the_embedded_model(directory):
    assert load_model(directory).cfg.model_name == "llama"
    renamed = directory.rename(directory.with_name(NAME))
    assert load_model(renamed).cfg.model_name != NAME
    model = AutoModelForCausalLM.from_pretrained(renamed)
    assert load_model(hf_model=model, device="cpu").cfg.model_name not in (NAME, str(renamed))


@pytest.mark.parametrize("option", ["revision", "checkpoint_value"])
def test_a_directory_has_no_revisions(directory, option):
    with pytest.raises(ValueError, match=f"{option} goes with a name on the hub, and .*llama has"):
        load_model(directory, **{option: 3})


def test_an_option_that_transformer_lens_does_not_have_is_named(directory):
    with pytest.raises(TypeError, match=r"takes no revison; it takes .*revision"):
        load_model(directory, revison="main")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype(directory, dtype):
    bridge = load_model(directory, dtype=dtype)
    assert bridge(TOKENS).dtype == bridge.cfg.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_dtype_that_is_not_floating(directory, dtype):
    with pytest.raises(ValueError, match=r"torch\.bfloat16"):
        load_model(directory, dtype=dtype)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_device_that_is_not_there(directory, device):
    with pytest.raises(ValueError, match=rf"'{device}' is not available; available here: cpu"):
        load_model(directory, device=device)


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/such/place", "a/b/c", "~no-such-user/model", ""]
)
def test_path_without_a_model(name):
    with pytest.raises(FileNotFoundError, match=r"or a hub name|no config\.json"):
        load_model(name)


def test_a_file_that_is_no_model_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a model")
    with pytest.raises(FileNotFoundError, match=r"notes\.txt is a file, .* not end in \.gguf"):
        load_model(path)


def test_an_empty_name_is_not_the_directory_where_one_is(directory, monkeypatch):
    monkeypatch.chdir(directory)
    with pytest.raises(FileNotFoundError, match="or a hub name"):
        load_model("")


def test_directory_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_model(tmp_path)


def test_a_checkpoint_that_lacks_weights_is_refused(directory):
    """transformers would draw them, and another model would be read at each load."""
    method = PreTrainedModel.__dict__["from_pretrained"]
    weights = load_file(directory / "model.safetensors")
    lacking = [name for name in weights if ".1.mlp." in name]
    kept = {name: weight for name, weight in weights.items() if name not in lacking}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    first, second, third = sorted(lacking)
    message = f"has no {first}, {second}, {third} of LlamaForCausalLM, which transformers would"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_model(directory, device="cpu")
    # Who loads it elsewhere, or for training, is left alone.
    assert AutoModelForCausalLM.from_pretrained(directory).config.model_type == "llama"
    assert PreTrainedModel.__dict__["from_pretrained"] is method
    del weights["lm_head.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"has no lm_head\.weight of LlamaForCausalLM"):
        load_model(directory, device="cpu")


def test_a_method_that_someone_else_put_on_is_called_and_stays(directory, monkeypatch):
    method, calls = PreTrainedModel.__dict__["from_pretrained"], []

    def counted(cls, *args, **options):
        calls.append(cls)
        return method.__get__(None, cls)(*args, **options)

    other = classmethod(counted)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", other)
    load_model(directory, device="cpu")
    assert len(calls) == 1
    assert PreTrainedModel.__dict__["from_pretrained"] is other


def test_other_threads_load_what_lacks_weights(directory):
    weights = load_file(directory / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    load = partial(AutoModelForCausalLM.from_pretrained, directory)
    with whole_weights(), ThreadPoolExecutor(1) as thread:
        assert thread.submit(load).result().config.model_type == "llama"
        with pytest.raises(ValueError, match=r"no lm_head\.weight"):
            load()


def test_a_checkpoint_whose_unembedding_is_the_embedding_lacks_nothing(tmp_path):
    model = tiny_model("gpt2", dtype=torch.float32)
    model.base_model.save_pretrained(tmp_path / "headless")
    tiny_tokenizer().save_pretrained(tmp_path / "headless")
    bridge = load_model(tmp_path / "headless", device="cpu")
    torch.testing.assert_close(bridge(TOKENS), model(TOKENS).logits, rtol=0, atol=1e-5)


def test_hub_name_while_offline():
    with pytest.raises(ConnectionError, match="'owner/model' is not a directory here") as caught:
        load_model("owner/model")
    assert "\n" not in str(caught.value)
    assert hub.HF_HUB_OFFLINE


def test_unreachable_hub_and_a_cached_model(directory, tmp_path):
    """The port is closed: the cached model loads all the same, the other fails in seconds.

    Of the cached one there is a second revision, with fewer layers.
    """
    snapshot = tmp_path / "home" / "hub" / "models--owner--cached" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    directory.rename(snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    other = snapshot.with_name("1" * 40)
    tiny_model("llama", num_hidden_layers=2).save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    (refs / "step1").write_text("1" * 40)
    script = textwrap.dedent(
        """
        import time
        import pytest
        from lens_interventions import load_model
        print(load_model("owner/cached", device="cpu").cfg.n_layers)
        print(load_model("owner/cached", device="cpu", revision="step1").cfg.n_layers)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="127.0.0.1"):
            load_model("owner/other")
        print(time.monotonic() - start)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=True,
    )
    n_layers, of_step, seconds = done.stdout.split()
    assert (n_layers, of_step) == ("3", "2")
    assert float(seconds) < 5


def test_hub_that_never_answers(monkeypatch):
    """As where packets are dropped: a listener that accepts and stays silent."""
    monkeypatch.setattr(the_hub, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="cannot be reached"):
            load_model("owner/model")
        assert time.monotonic() - start < 5


def test_address_lookup_that_never_ends(monkeypatch):
    monkeypatch.setattr(the_hub, "PATIENCE", 0.3)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)

    def look_up(*_args, **_kwargs):
        time.sleep(5)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    start = time.monotonic()
    assert not the_hub.hub_answers()
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("status", [200, 404, 503])
def test_any_answer_counts(monkeypatch, status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        assert the_hub.hub_answers()


@pytest.fixture
def directory_with_code(tmp_path, monkeypatch):
    """A model whose config is code; running it leaves a file `ran` beside it."""
    directory = tmp_path / "with_code"
    directory.mkdir()
    (directory / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.Own"}})
    )
    (directory / "configuration_own.py").write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from transformers import PretrainedConfig

            Path({str(directory / "ran")!r}).touch()

            class Own(PretrainedConfig):
                model_type = "own"
            """
        )
    )
    monkeypatch.setattr(
        transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    return directory


def test_code_does_not_run_by_default(directory_with_code):
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_model(directory_with_code)
    assert not (directory_with_code / "ran").exists()


def test_code_runs_when_trusted(directory_with_code):
    with pytest.raises(ValueError, match="own"):  # no TransformerLens adapter for it
        load_model(directory_with_code, trust_remote_code=True)
    assert (directory_with_code / "ran").exists()


def test_a_model_that_was_just_loaded_runs_no_kernels(directory):
    """transformers switches them on from 5.25 on, if the package that has them is installed."""
    bridge = load_model(directory)
    assert not bridge.original_model.use_kernels
    assert alteration(bridge) is None


def test_a_model_that_was_just_loaded_generates_with_its_cache_as_without():
    """In a new process, where nothing else of the library was imported."""
    code = """
import torch
from tests.support.tiny import tiny_model, tiny_tokenizer
import lens_interventions as li

bridge = li.load_model(hf_model=tiny_model("llama"), tokenizer=tiny_tokenizer(), device="cpu")
tokens, options = torch.arange(4, 12)[None], {"max_new_tokens": 12, "do_sample": False}
cached, whole = (
    bridge.original_model.generate(tokens, use_cache=use, **options) for use in (True, False)
)
assert cached.tolist() == whole.tolist(), (cached, whole)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
