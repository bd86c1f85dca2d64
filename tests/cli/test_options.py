"""Options by which every command loads its model."""

import pytest
import torch

from lens_interventions.cli.explorer import _bridge_line
from lens_interventions.lens.logit_lens import logit_lens
from lens_interventions.lens.trajectory import Trajectory
from tests.support.tiny import shared_bridge, tiny_model, tiny_tokenizer

TEXT = "the people say"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "llama"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_a_precision_is_that_of_the_weights(command, directory, tmp_path):
    out = tmp_path / "read.safetensors"
    options = ("--model", directory, "--device", "cpu", "--out", out)
    status, _, err = command("lens", TEXT, "--dtype", "float64", *options)
    assert status == 0, err
    found = Trajectory.load(out).entropy
    assert torch.equal(found, logit_lens(shared_bridge("llama"), TEXT).entropy)
    assert command("lens", TEXT, "--dtype", "bfloat16", *options)[0] == 0
    assert not torch.allclose(Trajectory.load(out).entropy.double(), found.double(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--dtype", "int8"], 2, "'int8' is not one of float32, bfloat16, float16, float64"),
        (["--revision", "step1"], 1, "revision goes with a name on the hub"),
    ],
)
def test_a_wrong_one_gets_a_line(command, directory, options, status, said):
    found, _, err = command("lens", TEXT, "--model", directory, *options)
    assert found == status
    assert said in " ".join(err.replace("│", " ").split())


def test_a_lens_by_name_is_asked_of_the_hub(command, directory):
    status, _, err = command("lens", TEXT, "--model", directory, "--lens", "gemma-3-270m")
    assert status == 1
    assert "neither the local cache nor the hub" in " ".join(err.split())
    assert "give a file, or a name from" in " ".join(err.split())
    missing = command("lens", TEXT, "--lens", "missing.safetensors")[2]
    assert "missing.safetensors" in missing
    assert "hub" not in missing


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02"])
def test_a_file_that_is_no_lens_is_named(command, directory, tmp_path, content):
    lens = tmp_path / "bad.pt"
    lens.write_bytes(content)
    status, _, err = command("lens", TEXT, "--model", directory, "--lens", lens)
    assert status == 1
    assert "bad.pt is not a Jacobian lens of TransformerLens" in " ".join(err.split())


def test_the_explorer_offers_the_line_that_loads_the_model():
    options = {"--revision": "step1", "--device": None, "--dtype": "bfloat16"}
    assert _bridge_line("gpt2", options).splitlines() == [
        "import torch",
        "bridge = li.load_model('gpt2', revision='step1', dtype=torch.bfloat16)",
    ]
