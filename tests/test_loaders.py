"""Files that are not what they should be: each loader raises `ValueError`, whatever is in them."""

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import lens_interventions as li
from lens_interventions._files import save_tensors
from lens_interventions.intervention.training.state import TrainingState
from tests.support.tiny import shared_bridge

ANY_FILE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=5,
)
KINDS = {
    "lens": li.AffineLens,
    "probe": li.InputProbe,
    "write": li.LearnedWrite,
    "trajectory": li.Trajectory,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A right file of each kind."""
    folder = tmp_path_factory.mktemp("saved")
    maps, shifts = torch.zeros(3, 4, 4), torch.zeros(3, 4)
    li.AffineLens(maps, shifts, "unknown", {}).save(folder / "lens")
    li.InputProbe(
        points=("0_pre", "1_pre", "final_post"),
        weight=maps,
        bias=shifts,
        shared_weight=maps[0],
        shared_bias=shifts[0],
        counts=torch.arange(9),
        fingerprint="a",
        settings={},
    ).save(folder / "probe")
    li.LearnedWrite(
        layers=(1, 2),
        down=torch.zeros(2, 4, 1),
        up=torch.zeros(2, 1, 4),
        bias=None,
        trained_with="true",
        source="true",
        embedding="W_U",
        scale="norm",
        first_position=1,
        fingerprint="a",
        reader=li.AdaptedReader(
            down={"1.q": torch.ones(3, 4), "1.k": torch.ones(3, 4)},
            up={"1.q": torch.ones(8, 3), "1.k": torch.ones(2, 3)},
            fingerprint="b",
        ),
    ).save(folder / "write")
    tokens = torch.arange(4, 12).view(2, 4)
    li.logit_lens(shared_bridge("llama"), tokens, watch=[9, 50]).save(folder / "trajectory")
    return folder


def parts(path, kind):
    """What a file holds, without the hash that would tell of any change."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rest = json.loads(file.metadata()[kind])
        del rest["sha256"]
        return tensors, rest


@pytest.mark.parametrize("kind", KINDS)
def test_right_files_load(saved, kind):
    assert isinstance(KINDS[kind].load(saved / kind), KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@ANY_FILE
@given(data=st.data())
def test_any_bytes(saved, tmp_path, kind, data):
    whole = (saved / kind).read_bytes()
    start = data.draw(st.integers(0, min(len(whole), 600)))
    drawn = data.draw(st.binary(max_size=20))
    rest = whole[start + len(drawn) :] if data.draw(st.booleans()) else b""
    (tmp_path / "file").write_bytes(whole[:start] + drawn + rest)
    with contextlib.suppress(ValueError):  # changed text inside a header may well be right
        KINDS[kind].load(tmp_path / "file")


@pytest.mark.parametrize("kind", KINDS)
@ANY_FILE
@given(data=st.data())
def test_any_header(saved, tmp_path, kind, data):
    tensors, rest = parts(saved / kind, kind)
    name = data.draw(st.sampled_from(sorted({*rest, "unheard of"} - {"format"})))
    rest[name] = data.draw(JSON)
    save_file(tensors, str(tmp_path / "file"), metadata={kind: json.dumps(rest)})
    try:
        loaded = KINDS[kind].load(tmp_path / "file")
    except ValueError:
        return
    assert name in ("settings", "fingerprint") or getattr(loaded, name) is not None


@pytest.mark.parametrize("kind", KINDS)
@ANY_FILE
@given(data=st.data())
def test_any_shape_or_type_of_a_tensor_is_refused(saved, tmp_path, kind, data):
    tensors, rest = parts(saved / kind, kind)
    name = data.draw(st.sampled_from(sorted(tensors)))
    if data.draw(st.booleans()):
        tensors[name] = tensors[name][None].contiguous()
    elif data.draw(st.booleans()) or tensors[name].dtype == torch.bool:
        tensors[name] = tensors[name].to(torch.complex64)
    else:
        tensors[name] = torch.cat([tensors[name], tensors[name]], dim=-1)
        if name == "counts":  # its length is the vocabulary's, which the file does not say
            return
    save_file(tensors, str(tmp_path / "file"), metadata={kind: json.dumps(rest)})
    with pytest.raises(ValueError, match="is damaged"):
        KINDS[kind].load(tmp_path / "file")


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("write", "first_position", -5, "its first_position is -5"),
        ("write", "first_position", True, "first_position is True"),
        ("write", "layers", [1, 2, 3], "3 layers, but 2 of down"),
        ("write", "layers", [2, 1], r"its layers are \(2, 1\)"),
        ("write", "source", "nobody", "no source 'nobody'"),
        ("write", "embedding", "W_X", "embedding is 'W_X'"),
        ("write", "reader", None, "its reader was trained on None"),
        ("probe", "points", ["0_pre"], "1 points, but 3 of weight"),
        ("lens", "settings", [], r"settings is \[\]"),
        ("trajectory", "vocab", [[4, "a"]], "has no text"),
        ("trajectory", "watched", [9], "other tokens than it watches"),
    ],
)
def test_a_wrong_value_is_named(saved, tmp_path, kind, field, value, message):
    tensors, rest = parts(saved / kind, kind)
    note = json.dumps(rest | {field: value})
    save_file(tensors, str(tmp_path / "file"), metadata={kind: note})
    with pytest.raises(ValueError, match=message):
        KINDS[kind].load(tmp_path / "file")


@pytest.mark.parametrize("lost", ["down", "up", "gate_weight", "gate_bias"])
def test_half_of_a_pair_is_no_write(saved, tmp_path, lost):
    tensors, rest = parts(saved / "write", "write")
    tensors |= {"gate_weight": torch.zeros(2, 4), "gate_bias": torch.zeros(2)}
    save_file(tensors, str(tmp_path / "whole"), metadata={"write": json.dumps(rest)})
    assert li.LearnedWrite.load(tmp_path / "whole").gate_bias is not None
    del tensors[lost]
    save_file(tensors, str(tmp_path / "file"), metadata={"write": json.dumps(rest)})
    with pytest.raises(ValueError, match=r"is damaged.*missing"):
        li.LearnedWrite.load(tmp_path / "file")


@pytest.mark.parametrize("note", ["[]", "null", "{", "[" * 100_000, '{"format": []}'])
def test_a_header_that_is_no_object(saved, tmp_path, note):
    tensors, _ = parts(saved / "lens", "lens")
    save_file(tensors, str(tmp_path / "file"), metadata={"lens": note})
    with pytest.raises(ValueError, match="not a saved lens"):
        li.AffineLens.load(tmp_path / "file")


@pytest.mark.parametrize("rest", [{}, {"settings": {}}, {"settings": {}, "step": 1}])
def test_a_checkpoint_of_a_training_that_lacks_something(tmp_path, rest):
    leaf = torch.zeros(2, requires_grad=True)
    state = TrainingState({"up": leaf}, torch.optim.AdamW([leaf]), best={})
    save_tensors(tmp_path / "file", {"leaf.up": leaf.detach()}, kind="training", rest=rest)
    with pytest.raises(ValueError, match="is damaged"):
        state.load(tmp_path / "file", {})


@pytest.mark.parametrize("lost", ["done", "counts", "digest", "tensor fitted.xx", "tensor counts"])
def test_a_checkpoint_of_a_fit_that_lacks_something(tmp_path, lost):
    path, texts = tmp_path / "file", [torch.arange(4, 20)] * 4
    fit = {"window": 8, "holdout": 2, "progress": False, "checkpoint": path}
    li.fit_affine_lens(shared_bridge("llama"), texts, **fit)
    tensors, rest = parts(path, "checkpoint")
    kind, _, name = lost.rpartition(" ")
    if kind:
        del tensors[name]
    else:
        rest[name] = None
    save_file(tensors, str(path), metadata={"checkpoint": json.dumps(rest)})
    said = f"is damaged .*{name}.*remove it" if kind else f"is damaged in {name}"
    with pytest.raises(ValueError, match=said):
        li.fit_affine_lens(shared_bridge("llama"), texts, **fit)
