"""Files that are written whole or not at all, and what happens where they cannot be."""

import os
import stat
import sys
from pathlib import Path

import pytest
import torch

from lens_interventions._files import (
    UNFINISHED,
    atomic_file,
    load_tensors,
    require_writable,
    save_tensors,
    write_text,
)
from tests.support.full_disk import files_of_at_most


def save(path):
    save_tensors(path, {"a": torch.ones(2)}, kind="thing", rest={})


def save_large(path):
    save_tensors(path, {"a": torch.ones(10_000)}, kind="thing", rest={})


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_tensors_and_the_rest_come_back(tmp_path):
    path, transposed = tmp_path / "file.safetensors", torch.arange(6.0).view(2, 3).T
    save_tensors(path, {"a": transposed}, kind="thing", rest={"numbers": [1, 2]})
    tensors, rest = load_tensors(path, kind="thing")
    assert torch.equal(tensors["a"], transposed)
    assert rest == {"numbers": [1, 2]}
    with pytest.raises(ValueError, match="not a saved other"):
        load_tensors(path, kind="other")


def test_what_is_not_what_was_saved_is_damage(tmp_path):
    path = tmp_path / "file.safetensors"
    save_tensors(path, {"a": torch.ones(200)}, kind="thing", rest={"step": 7, "by": {3: 0.1}})
    load_tensors(path, kind="thing")
    whole = path.read_bytes()
    one, other = (torch.full((1,), value).numpy().tobytes() for value in (1.0, 1.5))
    for old, new in ((one, other), (b'step\\": 7', b'step\\": 8')):
        assert old in whole
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(ValueError, match="does not hold what was saved"):
            load_tensors(path, kind="thing")


def test_views_of_one_tensor_are_saved_as_tensors_of_their_own(tmp_path):
    path, stack = tmp_path / "file.safetensors", torch.arange(6.0).view(2, 3)
    views = {"all": stack, "first": stack[0], "second": stack[1], "turned": stack.T}
    save_tensors(path, views, kind="thing", rest={})
    tensors, _ = load_tensors(path, kind="thing")
    assert all(torch.equal(tensors[name], view) for name, view in views.items())


def test_what_cannot_be_written_is_an_error_of_the_file_system(tmp_path):
    for path in (tmp_path, tmp_path / "no directory" / "file"):
        with pytest.raises(OSError, match="cannot be written"):
            save(path)


def test_what_was_loaded_stays_as_it_was_when_the_file_is_overwritten_in_place(tmp_path):
    for name, value in (("kept", 1.0), ("other", 2.0)):
        save_tensors(tmp_path / name, {"x": torch.full((5000,), value)}, kind="test", rest={})
    loaded, _ = load_tensors(tmp_path / "kept", kind="test")
    with (tmp_path / "kept").open("rb+") as stream:  # as cp does
        stream.write((tmp_path / "other").read_bytes())
    assert (loaded["x"] == 1.0).all()
    reloaded, _ = load_tensors(tmp_path / "kept", kind="test")
    assert (reloaded["x"] == 2.0).all()


def test_a_file_that_another_program_holds_is_named_before_the_work_where_that_matters(
    tmp_path, monkeypatch
):
    """Windows replaces no such file, and says so as soon as it is opened."""

    def refuse(self, mode):
        raise PermissionError(13, "The process cannot access the file", str(self))

    held = tmp_path / "held"
    held.touch()
    monkeypatch.setattr(Path, "open", refuse)
    require_writable(held)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(OSError, match="held cannot be written: The process cannot access"):
        require_writable(held)


def test_a_file_that_cannot_be_replaced_is_named(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(13, "Access is denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match=r"table\.csv cannot be written: Access is denied$"):
        write_text(tmp_path / "table.csv", "a")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_device_is_refused_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    for path in (pipe, link):
        with pytest.raises(OSError, match="is there and is not a regular file"):
            save(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(link.stat().st_mode)
    assert list(tmp_path.glob(UNFINISHED)) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(tmp_path, there):
    (tmp_path / "away").mkdir()
    target, link = tmp_path / "away" / "file", tmp_path / "link"
    link.symlink_to("away/file")
    if there:
        target.write_text("old")
    save(link)
    assert link.is_symlink()
    assert load_tensors(target, kind="thing")[0]["a"].tolist() == [1, 1]


def test_a_file_keeps_its_mode_and_a_new_one_has_the_usual(tmp_path):
    kept, new = tmp_path / "kept", tmp_path / "new"
    kept.write_text("old")
    kept.chmod(0o604)
    before = os.umask(0o027)
    try:
        save(kept)
        save(new)
    finally:
        os.umask(before)
    assert (mode(kept), mode(new)) == (0o604, 0o640)


def test_the_longest_name_of_a_file_saves_and_loads(tmp_path):
    for name in ("x" * 248, "é" * 127):
        save(tmp_path / name)
        assert load_tensors(tmp_path / name, kind="thing")[0]["a"].tolist() == [1, 1]
    with pytest.raises(OSError, match="name too long"):
        require_writable(tmp_path / ("x" * 256))


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    for call in (require_writable, save, lambda name: write_text(name, "text")):
        with pytest.raises(OSError, match="its name is not valid UTF-8"):
            call(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def stopped():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        stopped()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [save_large, lambda path: write_text(path, "x" * 10_000)])
def test_a_full_disk_leaves_what_was_there(tmp_path, write):
    path = tmp_path / "file"
    save(path)
    with files_of_at_most(4096), pytest.raises(OSError, match="File too large"):
        write(path)
    assert load_tensors(path, kind="thing")[0]["a"].tolist() == [1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_half_of_a_surrogate_pair_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "file", "a\ud800é")
    assert (tmp_path / "file").read_text(encoding="utf-8") == r"a\ud800é"
