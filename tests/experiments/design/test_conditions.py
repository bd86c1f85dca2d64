"""The patch that settings and the form of an arm make together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lens_interventions import AffineLens, NextTokenPatch
from lens_interventions.experiments.design.conditions import Arm, PatchSettings
from lens_interventions.fitting import default_lens
from lens_interventions.model.user_cache import CACHE_VARIABLE
from tests.support.tiny import shared_bridge, tiny_bridge

PLAIN = NextTokenPatch(layer=1, strength=0.1, mode="add", scale="norm", first_position=1)
BY_OUTPUT = PatchSettings(gate=2.0, gate_on="output")


@pytest.mark.parametrize(
    ("form", "settings", "fields"),
    [
        ("plain", PatchSettings(), {}),
        ("plain", PatchSettings(gate=2.0), {"gate": 2.0}),
        ("plain", BY_OUTPUT, {"gate": 2.0, "gate_on": "output"}),
        ("recent tokens", PatchSettings(), {"window": 4}),
        ("recent tokens", BY_OUTPUT, {"window": 4, "gate": 2.0, "gate_on": "output"}),
        ("layers up", PatchSettings(), {"layer": (1, 2)}),
        # These gate by themselves.
        ("surprised output", PatchSettings(), {"gate": 6.0, "gate_on": "output"}),
        ("surprised output", BY_OUTPUT, {"gate": 6.0, "gate_on": "output"}),
    ],
)
def test_a_form_changes_the_patch_of_the_settings(
    form: str, settings: PatchSettings, fields: dict
) -> None:
    (patch,) = settings.patches(shared_bridge("llama"), [Arm("true", 1, 0.1, "add", form)])
    assert patch == replace(PLAIN, **fields)


def test_a_form_that_asks_the_lens_still_does_where_the_settings_ask_the_output(
    tmp_path: Path,
) -> None:
    bridge = shared_bridge("llama")
    path = tmp_path / "lens.safetensors"
    AffineLens(torch.eye(32).expand(3, 32, 32), torch.zeros(3, 32), "unknown", {}).save(path)
    settings = replace(BY_OUTPUT, lens=str(path))
    (patch,) = settings.patches(bridge, [Arm("true", 1, 0.1, "add", "surprised lens")])
    assert patch is not None
    assert (patch.gate, patch.gate_on) == (6.0, "lens")
    assert isinstance(patch.lens, AffineLens)


def test_a_lens_whose_file_was_overwritten_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    settings = PatchSettings(lens=str(path))
    for factor in (1.0, 2.0):
        weight = factor * torch.eye(32).expand(3, 32, 32)
        AffineLens(weight, torch.zeros(3, 32), "unknown", {}).save(path)
        lens = settings.fitted_lens()
        assert lens is not None
        assert torch.equal(lens.weight, weight)
        assert settings.fitted_lens() is lens


def test_the_default_lens_is_a_file_of_the_run_where_a_form_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(default_lens, "_TEXTS", 16)
    monkeypatch.setattr(default_lens, "_LENGTH", 12)
    bridge, forms = shared_bridge("llama"), ("recent tokens", "surprised lens")
    assert PatchSettings().other_files(bridge, forms[:1], progress=False) == {}
    assert PatchSettings(lens="mine").other_files(bridge, forms, progress=False) == {}
    assert not list(tmp_path.iterdir())
    files = PatchSettings().other_files(bridge, forms, progress=False)
    assert files == {"default lens": str(*tmp_path.iterdir())}
    (patch,) = PatchSettings().patches(bridge, [Arm("true", 1, 0.1, "add", forms[1])])
    assert patch is not None
    assert isinstance(patch.lens, AffineLens)
    assert torch.equal(patch.lens.weight, AffineLens.load(files["default lens"]).weight)


def test_a_run_with_hooks_that_last_needs_a_lens_of_its_own() -> None:
    bridge = tiny_bridge("llama")
    with bridge.original_model.register_forward_hook(lambda *_: None):
        with pytest.raises(ValueError, match="as the setting lens"):
            PatchSettings().other_files(bridge, ["surprised lens"], progress=False)
        assert (
            PatchSettings(lens="mine").other_files(bridge, ["surprised lens"], progress=False) == {}
        )
    mlp = bridge.blocks[0].mlp
    mlp.forward = mlp.forward
    with pytest.raises(ValueError, match=r"another forward .* as the setting lens"):
        PatchSettings().other_files(bridge, ["surprised lens"], progress=False)


def test_a_gate_on_the_output_needs_a_gate() -> None:
    with pytest.raises(ValueError, match="give a gate"):
        PatchSettings(gate_on="output")


def test_the_seed_of_the_settings_is_that_of_the_patch() -> None:
    settings = PatchSettings(seed=5)
    (patch,) = settings.patches(shared_bridge("llama"), [Arm("random", 1, 0.1, "add", "plain")])
    assert patch is not None
    assert patch.seed == 5
