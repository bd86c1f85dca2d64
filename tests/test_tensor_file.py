"""Files of tensors, and what happens where they cannot be written."""

import pytest
import torch
from safetensors import safe_open

from lens_interventions.tensor_file import save_tensors


def test_tensors_and_header_come_back(tmp_path):
    path, transposed = tmp_path / "file.safetensors", torch.arange(6.0).view(2, 3).T
    save_tensors(path, {"a": transposed}, header={"text": "{}"})
    with safe_open(str(path), framework="pt") as file:
        assert torch.equal(file.get_tensor("a"), transposed)
        assert file.metadata() == {"text": "{}"}


def test_what_cannot_be_written_is_an_error_of_the_file_system(tmp_path):
    for path in (tmp_path, tmp_path / "no directory" / "file"):
        with pytest.raises(OSError, match="cannot be written"):
            save_tensors(path, {"a": torch.zeros(1)}, header={})
