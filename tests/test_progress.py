"""How far work has come: told to whoever waits, and shown to the user."""

import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import tqdm.std
from transformer_lens.model_bridge import TransformerBridge
from transformers import EosTokenCriteria

import lens_interventions as li
from lens_interventions import _progress
from lens_interventions._progress import progress_bar, share_shown, steps, told_to
from lens_interventions.intervention import pieces
from lens_interventions.model import capabilities
from tests.support.small_run import example, small_bridge
from tests.support.tiny import random_tokens


def test_loops_inside_loops_share_out_the_part_around_them() -> None:
    told: list[float] = []
    with told_to(told.append):
        for _ in steps("ab"):
            for _ in steps(range(2)):
                pass
    assert told == [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1]


def test_a_loop_that_is_left_early_leaves_the_next_its_share() -> None:
    told: list[float] = []
    with told_to(told.append):
        for _ in steps(range(4)):
            break
        told.clear()
        assert list(steps("ab")) == ["a", "b"]
    assert told == [0, 0.5, 1]


def test_nobody_waits_after_the_block_and_in_other_blocks_somebody_else() -> None:
    outer: list[float] = []
    inner: list[float] = []
    with told_to(outer.append):
        with told_to(inner.append):
            list(steps("a"))
        assert outer == []
        list(steps("a"))
    list(steps("abc"))
    assert outer == inner == [0, 1]


def test_steps_of_an_iterator_need_a_number_which_need_not_be_exact() -> None:
    def three() -> Iterator[int]:
        yield from range(3)

    told: list[float] = []
    with told_to(told.append):
        assert list(steps(three(), total=2)) == [0, 1, 2]
        with pytest.raises(TypeError, match="give total="):
            list(steps(three()))
    assert told == [0, 0.5, 1, 1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The seconds that lines and tqdm see."""
    now = [1000.0]
    with monkeypatch.context() as patched:
        patched.setattr(_progress.time, "monotonic", lambda: now[0])
        patched.setattr(tqdm.std, "time", lambda: now[0])
        yield now


def test_without_a_terminal_lines_come_ever_more_slowly(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    for _ in progress_bar(range(300), unit="text", desc="reading"):
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    seen = [int(line.split("/")[0].split()[-1]) for line in lines]
    assert seen == [2, 4, 8, 16, 32, 64, 124, 184, 244, 300]
    assert lines[0].startswith("reading:   1% 2/300 [00:02<")


def test_short_work_and_work_that_is_not_shown_say_nothing(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    for _ in progress_bar(range(3), unit="text", desc="reading"):
        clock[0] += 0.5
    for _ in progress_bar(range(300), shown=False, unit="text", desc="reading"):
        clock[0] += 1
    with share_shown("teacher forcing", shown=False):
        for _ in steps(range(300)):
            clock[0] += 1
    assert capsys.readouterr().err == ""


def test_bars_inside_bars_are_lines_too(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    for _ in progress_bar(range(2), unit="text", desc="outer"):
        for _ in progress_bar(range(4), unit="text", desc="inner"):
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("outer:", "inner:")) for line in lines)
    assert [line.split()[2] for line in lines] == ["2/4", "4/4", "1/2", "2/4", "4/4", "2/2"]


def test_the_share_of_the_steps_inside_is_shown(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    with share_shown("teacher forcing", shown=True):
        for _ in steps(range(2)):
            for _ in steps(range(2)):
                clock[0] += 3
    lines = [line.split("<")[0] for line in capsys.readouterr().err.splitlines()]
    shares = {"25%": "00:03", "50%": "00:06", "100%": "00:12"}
    assert lines == [f"teacher forcing: {share} [{after}" for share, after in shares.items()]


def test_decoding_and_teacher_forcing_show_it_if_asked_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: TransformerBridge
) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    written = li.generate(llama, [[1, 2, 3]], patch, max_new_tokens=7, progress=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("generating: 100% 7/7 ")
    tokens = torch.cat([written.prompts, written.tokens], dim=1)
    for read in (li.teacher_forced_log_probs, li.teacher_forced_logits):
        shown = read(llama, tokens, [None, patch], progress=True)
        assert capsys.readouterr().err.splitlines()[-1].startswith("teacher forcing: 100% ")
        assert torch.equal(shown, read(llama, tokens, [None, patch]))
        assert capsys.readouterr().err == ""


class _Stream:
    """A standard error of somebody else's, without `isatty`."""

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text

    def flush(self) -> None:
        pass


def test_a_standard_error_that_is_no_terminal_or_none_at_all_does_not_end_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    plain, closed = _Stream(), io.StringIO()
    closed.close()
    for stream in (plain, closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(progress_bar([1, 2, 3], unit="text", desc="reading")) == [1, 2, 3]
    assert "3/3" in plain.written
    assert not written.getvalue()


@pytest.mark.usefixtures("as_users_run")
def test_a_function_is_not_taken_for_the_wish_to_see_a_bar(llama: TransformerBridge) -> None:
    with pytest.raises(TypeError, match="progress must be True or False here, got the function"):
        progress_bar([1], shown=print, desc="reading")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress must be True or False here"):
        li.teacher_forced_log_probs(llama, [[1, 2]], None, progress=print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress must be True or False here"):
        li.experiments.run(example(), small_bridge, progress=print)  # type: ignore[arg-type]


def test_a_long_text_moves_the_bar_with_each_of_its_pieces(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    llama: TransformerBridge,
) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(_progress, "_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(tqdm.std, "time", itertools.count().__next__)
    monkeypatch.setattr(pieces, "_BATCH_TOKENS", 1)  # each piece alone
    monkeypatch.setattr(capabilities, "_PATIENCE", 600.0)  # what it tries is not told
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    options = {"max_length": 12, "checkpoint": tmp_path / "sums.jsonl"}
    texts, seen = [random_tokens(30), random_tokens(5)], []
    for _ in range(2):  # the second time all is there already
        li.patch_loss(llama, texts, patch, **options)
        lines = capsys.readouterr().err.splitlines()
        seen.append([float(line.split("%")[1].split("/")[0]) for line in lines])
    assert seen == [[0, 0.33, 0.67, 1, 2], [0, 2]]


def test_decoding_that_ends_early_shows_that_all_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: TransformerBridge
) -> None:
    monkeypatch.setattr(_progress, "_PATIENCE", 0.0)
    first = int(li.generate(llama, [[1, 2, 3]], max_new_tokens=1).tokens[0, 0])
    ends = [EosTokenCriteria(first)]
    li.generate(llama, [[1, 2, 3]], max_new_tokens=7, stopping_criteria=ends, progress=True)
    assert " 1/1 " in capsys.readouterr().err.splitlines()[-1]
