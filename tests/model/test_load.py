"""load_model by path and by name: offline, refusing code, on devices that are there."""

import http.server
import json
import socket
import subprocess
import sys
import textwrap
import threading
import time

import huggingface_hub.constants as hub
import pytest
import torch
import transformers.dynamic_module_utils
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lens_interventions import load_model
from lens_interventions.model import hub as the_hub
from lens_interventions.model._embedded import NAME
from lens_interventions.model.kinds import weight_dtype
from tests.support.pages import ROOT
from tests.support.tiny import tiny_bridge, tiny_model, tiny_tokenizer

TOKENS = torch.arange(4, 12)[None]


@pytest.fixture
def directory(tmp_path):
    """A tiny llama as `save_pretrained` leaves it."""
    tiny_model("llama").save_pretrained(tmp_path / "llama")
    tiny_tokenizer().save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def no_network(monkeypatch):
    """As on a machine that is online, but where any connection fails the test."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


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
def test_the_weights_of_a_model_in_memory_that_cannot_be_loaded_come_back(dtype):
    model = tiny_model("llama").float()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="tokenizer="):
        load_model(hf_model=model, dtype=dtype, device="cpu")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


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
    model, moved = tiny_model("llama"), []
    monkeypatch.setattr(model, "to", lambda device: moved.append(device))
    for device in (None, "cpu"):
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


def test_a_directory_is_not_taken_for_the_embedded_model(directory):
    assert load_model(directory).cfg.model_name == "llama"
    renamed = directory.rename(directory.with_name(NAME))
    assert load_model(renamed).cfg.model_name != NAME
    model = AutoModelForCausalLM.from_pretrained(renamed)
    assert load_model(hf_model=model, device="cpu").cfg.model_name not in (NAME, str(renamed))


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


def test_directory_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_model(tmp_path)


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
