"""`lens-interventions train-patch` on a tiny model: what it writes, going on, what it refuses."""

import functools
import importlib
import json

import pytest
import torch

import lens_interventions as li
from lens_interventions.intervention.training import loop as write_training
from lens_interventions.intervention.training import options as training_options
from tests.support.tiny import shared_bridge

# The package has the command by this name.
command_module = importlib.import_module("lens_interventions.cli.train_patch")

DOCUMENTS = [
    f"the people say that {word} is the time they mean, and then the dog jumps over the {word}"
    for word in ("fox", "blood", "state", "matter", "plasma", "time", "brown", "quick", "lazy")
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    return path


@pytest.fixture
def run(monkeypatch, command):
    """The command on a tiny Llama."""
    monkeypatch.setattr(command_module, "load", lambda *_: shared_bridge("llama"))
    return functools.partial(command, "train-patch")


def arguments(corpus, out, *more, rank=("--rank", 4)):
    return ("--file", corpus, "--out", out, "--layer", 1, *rank, "--steps", 12, *more)


def expected(*, seed=0, **options):
    small = li.TrainingOptions(window=16, batch_size=2, **options)
    return li.train_patch(
        shared_bridge("llama"),
        DOCUMENTS,
        layer=1,
        rank=4,
        steps=12,
        seed=seed,
        options=small,
        progress=False,
    )


def test_it_writes_what_train_patch_learns(run, corpus, tmp_path):
    out = tmp_path / "patch.safetensors"
    small = ("--window", 16, "--batch-size", 2, "--learning-rate", 0.02, "--no-bias")
    figure = tmp_path / "curve.json"
    status, printed, err = run(*arguments(corpus, out, *small, "--figure", figure))
    assert status == 0, err
    result = expected(learning_rate=0.02, bias=False)
    write = li.LearnedWrite.load(out)
    torch.testing.assert_close(write.up, result.write.up.float(), rtol=0, atol=0)
    assert write.bias is None
    assert write.settings == dict(result.settings)
    last = result.held_out.iloc[-1]
    assert f"({last['change']:+.4f})" in printed
    assert "train --source current and zero" in printed
    assert len(json.loads(figure.read_text())["data"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus.jsonl",
        "curve.json",
        "patch.safetensors",
    ]
    write.patch().bind(shared_bridge("llama"))


def test_the_rank_that_help_tells_is_the_library_s():
    module = importlib.import_module("lens_interventions.cli.train_patch")
    library = importlib.import_module("lens_interventions.intervention.training.train_patch")
    assert module._ADAPTER_RANK == library.ADAPTER_RANK


def test_the_seed_is_that_of_the_training(run, corpus, tmp_path):
    out = tmp_path / "patch.safetensors"
    small = ("--window", 16, "--batch-size", 2, "--seed", 3)
    status, _, err = run(*arguments(corpus, out, *small))
    assert status == 0, err
    up = li.LearnedWrite.load(out).up
    torch.testing.assert_close(up, expected(seed=3).write.up.float(), rtol=0, atol=0)
    assert not torch.equal(up, expected().write.up.float())


def test_stopped_it_goes_on(run, corpus, tmp_path, monkeypatch):
    out = tmp_path / "patch.safetensors"
    command = arguments(corpus, out, "--window", 16, "--batch-size", 2)
    step = write_training.WriteTraining._step
    made = []

    def stops(self):
        made.append(self.state.step)
        if self.state.step == 11 and len(made) == 12:
            raise RuntimeError("the power went out")
        step(self)

    monkeypatch.setattr(write_training.WriteTraining, "_step", stops)
    status, _, err = run(*command)
    assert status == 1
    assert "the power went out" in err
    assert not out.exists()
    assert run(*command)[0] == 0
    assert made[12:] == [10, 11]
    write = li.LearnedWrite.load(out)
    torch.testing.assert_close(write.up, expected().write.up.float(), rtol=0, atol=0)


def test_the_best_write_of_a_training_that_diverges_is_saved(run, corpus, tmp_path, monkeypatch):
    out = tmp_path / "patch.safetensors"
    step = write_training.WriteTraining._step

    def breaks(self):
        step(self)
        if self.state.step == 11:
            self.state.leaves["bias"].data.fill_(float("nan"))

    monkeypatch.setattr(write_training.WriteTraining, "_step", breaks)
    options = functools.partial(training_options.TrainingOptions, evaluate_every=4)
    monkeypatch.setattr(training_options, "TrainingOptions", options)
    status, _, err = run(*arguments(corpus, out, "--window", 16, "--batch-size", 2))
    assert status == 1
    best = li.LearnedWrite.load(out).settings["best_step"]
    assert best in (4, 8)
    assert "nan after 12 steps" in err
    assert f"{out} has the best write so far, of step {best}" in err
    # The same command with another learning rate, as it was told, begins anew.
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("stop", "kept"),
    [
        ((li.LearnedWrite, "save"), "what was done is kept in patch.safetensors.partial"),
        ((command_module, "_print"), "patch.safetensors is written"),
    ],
)
def test_stopped_after_the_training_it_says_what_is_kept(
    run, corpus, tmp_path, monkeypatch, stop, kept
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as stopped:
        stopped.setattr(*stop, interrupted)
        command = arguments(corpus, "patch.safetensors", "--window", 16, "--batch-size", 2)
        status, _, err = run(*command)
    assert status == 130
    assert kept in err


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--source", "next"), 2, "'next' is not one of true, random"),
        (("--layer", 7), 1, "the model has blocks 0 to 2"),
        (("--window", 1), 2, "window must be at least 2, got 1"),
        (("--strength", 0.3), 2, "--strength 0.3 leaves nothing to train: give --adapt"),
        (("--strength", 0.3, "--adapt", "attention"), 2, "leave out --rank, --full"),
        (("--full",), 2, "leave out --rank 4 or --full"),
        (("--source", "zero"), 2, "--source zero trains a bias alone"),
        (("--adapter-rank", 2), 2, "give --adapt too"),
        (("--adapt", "mlp"), 2, "adapt must be 'attention' or 'attention+mlp'; got 'mlp'"),
        (("--figure", "curve.doc"), 2, "cannot write 'curve.doc'"),
        (("--out", "write.json"), 2, "cannot write 'write.json': use one of .safetensors"),
        (("--out", "nowhere/patch.safetensors"), 1, "nowhere is not a directory to write in"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_mistakes(run, corpus, tmp_path, monkeypatch, more, status, message):
    monkeypatch.setenv("COLUMNS", "200")
    found, _, err = run(*arguments(corpus, tmp_path / "patch.safetensors", *more))
    assert found == status
    assert message in err


def test_the_rank_fits_a_narrow_model(run, corpus, tmp_path):
    out = tmp_path / "patch.safetensors"
    usual = ("--file", corpus, "--out", out, "--layer", 1, "--steps", 1, "--window", 16)
    status, _, err = run(*usual)
    assert status == 0, err
    assert li.LearnedWrite.load(out).settings["rank"] == shared_bridge("llama").cfg.d_model


def test_a_full_matrix_a_gate_and_two_layers(run, corpus, tmp_path):
    out = tmp_path / "patch.safetensors"
    more = ("--layer", 2, "--full", "--input-gate", "--source", "current", "--window", 16)
    status, printed, err = run(*arguments(corpus, out, *more, rank=()))
    assert status == 0, err
    write = li.LearnedWrite.load(out)
    assert (write.layers, write.down, write.source) == ((1, 2), None, "current")
    assert write.up.shape == (2, 32, 32)
    assert write.gate_weight.shape == (2, 32)
    assert "to compare" not in printed


def test_a_reader_of_a_fixed_write(run, corpus, tmp_path):
    out = tmp_path / "patch.safetensors"
    more = ("--strength", 0.3, "--adapt", "attention+mlp", "--adapter-rank", 2, "--window", 16)
    status, _, err = run(*arguments(corpus, out, *more, rank=()))
    assert status == 0, err
    write, bridge = li.LearnedWrite.load(out), shared_bridge("llama")
    assert {up.shape[1] for up in write.reader.up.values()} == {2}
    # It has no parameters of its own.
    assert (write.settings["rank"], write.settings["bias"]) == (None, False)
    # The first position is spared.
    plain = li.NextTokenPatch(
        layer=1, strength=0.3, mode="add", scale="norm", positions=range(1, 9)
    )
    tokens = bridge.to_tokens("the people say")
    with write.reader.on(bridge), torch.no_grad():
        found, expected = li.teacher_forced_logits(bridge, tokens, [write.patch(), plain])
    # A saved write is in float32.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
