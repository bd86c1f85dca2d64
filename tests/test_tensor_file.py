"""Files of tensors, and what happens where they cannot be written."""

import pytest
import torch

from lens_interventions._tensor_file import load_tensors, save_tensors


def test_tensors_and_the_rest_come_back(tmp_path):
    path, transposed = tmp_path / "file.safetensors", torch.arange(6.0).view(2, 3).T
    save_tensors(path, {"a": transposed}, kind="thing", rest={"numbers": [1, 2]})
    tensors, rest = load_tensors(path, kind="thing")
    assert torch.equal(tensors["a"], transposed)
    assert rest == {"numbers": [1, 2]}
    with pytest.raises(ValueError, match="not of a saved other"):
        load_tensors(path, kind="other")


def test_what_cannot_be_written_is_an_error_of_the_file_system(tmp_path):
    for path in (tmp_path, tmp_path / "no directory" / "file"):
        with pytest.raises(OSError, match="cannot be written"):
            save_tensors(path, {"a": torch.zeros(1)}, kind="thing", rest={})
