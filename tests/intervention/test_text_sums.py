"""Sums of each text, whatever is run together, and after an interruption."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from filelock import FileLock

import lens_interventions as li
from lens_interventions.intervention import pieces
from lens_interventions.intervention.text_sums import remove_lock
from tests.support.tiny import random_tokens, tiny_bridge


@dataclass(frozen=True)
class Capped:
    """A mode with a number, by which it does nothing."""

    cap: float

    def __call__(self, site, *_):
        return site.resid


pytestmark = pytest.mark.usefixtures("exact", "unrounded")


def test_batches_and_order_change_no_number(llama, monkeypatch):
    texts = [random_tokens(n) for n in (5, 30, 17, 2, 1, 9)]
    options = {
        "sources": ["true", "random", "direction", "guess"],
        "modes": ["correct"],
        "scopes": ["all", "copyable"],
        "max_length": 12,
        "progress": False,
    }
    together = li.slope_map(llama, texts, **options)
    order = [4, 2, 0, 5, 1, 3]
    shuffled = li.slope_map(llama, [texts[i] for i in order], **options)
    monkeypatch.setattr(pieces, "_BATCH_TOKENS", 1)
    monkeypatch.setattr("lens_interventions.intervention.slopes.directions.LOGIT_ROWS", 2)
    alone = li.slope_map(llama, texts, **options)
    for field in ("totals", "nats", "counts"):
        one, other, third = (getattr(m, field) for m in (together, shuffled, alone))
        np.testing.assert_allclose(one[order], other, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(one, third, rtol=1e-9, atol=1e-11)
    assert together.counts[:, 0].tolist() == [4, 27, 15, 1, 0, 8]


def test_it_goes_on_where_it_was_stopped(llama, tmp_path, monkeypatch):
    texts = [random_tokens(n) for n in (5, 30, 17)]
    options = {"max_length": 12, "checkpoint": tmp_path / "slopes.jsonl", "progress": False}
    monkeypatch.setattr(pieces, "_BATCH_TOKENS", 1)
    whole = li.slope_map(llama, texts, **options | {"checkpoint": None})

    def stops():
        yield from texts[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        li.slope_map(llama, stops(), **options)
    with options["checkpoint"].open("a") as file:
        file.write('{"text": "cut in the mid')
    run = []
    monkeypatch.setattr(
        "lens_interventions.intervention.slopes.slope_map.clean_run",
        lambda *a: run.append(1) or clean_run(*a),
    )
    from lens_interventions.intervention.slopes.clean_run import clean_run

    found = li.slope_map(llama, texts, **options)
    # The last text of an interrupted run may be lost: it was not finished.
    assert 0 < len(run) < 6
    np.testing.assert_array_equal(found.totals, whole.totals)
    run.clear()
    again = li.slope_map(llama, reversed(texts), **options)
    assert not run
    np.testing.assert_array_equal(again.totals, whole.totals[::-1])
    with pytest.raises(ValueError, match=r"another measurement.* differs in seed"):
        li.slope_map(llama, texts, **options, seed=1)


def test_a_file_is_for_one_token_that_texts_begin_with(tmp_path):
    """Pieces of a text begin with it, so other pieces would be other sums."""
    bridge = tiny_bridge("llama")
    text = torch.cat([torch.tensor([bridge.tokenizer.bos_token_id]), random_tokens(20)])
    options = {"max_length": 8, "layers": [0], "checkpoint": tmp_path / "sums", "progress": False}
    li.slope_map(bridge, [text], **options)
    bridge.tokenizer = None
    with pytest.raises(ValueError, match="differs in BOS token"):
        li.slope_map(bridge, [text], **options)


def test_a_file_is_for_one_config_of_the_weights(tmp_path):
    options = {"layers": [0], "checkpoint": tmp_path / "sums", "progress": False}
    li.slope_map(tiny_bridge("llama"), [random_tokens(9)], **options)
    with pytest.raises(ValueError, match="differs in model"):
        li.slope_map(tiny_bridge("llama", rms_norm_eps=0.1), [random_tokens(9)], **options)


def test_one_process_at_a_time_writes_a_file(llama, tmp_path):
    options = {"layers": [0], "checkpoint": tmp_path / "sums", "progress": False}
    with (
        FileLock(tmp_path / ".sums.lock"),
        pytest.raises(OSError, match=r"another call or process is writing .*sums: wait for it"),
    ):
        li.slope_map(llama, [random_tokens(8)], **options)
    assert not options["checkpoint"].exists()
    li.slope_map(llama, [random_tokens(8)], **options)


def test_a_lock_is_removed_only_by_who_could_hold_it(tmp_path):
    path, lock = tmp_path / "sums", tmp_path / ".sums.lock"
    with FileLock(lock):
        remove_lock(path)
        assert lock.exists()
    remove_lock(path)
    assert not lock.exists()
    remove_lock(path)
    assert not lock.exists()


def test_hooks_that_the_file_could_not_record_are_refused(tmp_path):
    bridge = tiny_bridge("llama")
    patch = li.NextTokenPatch(layer=1, strength=1.0)
    with bridge.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda out, hook: out / 2)]):
        li.curvature(bridge, [random_tokens(8)], patch, progress=False)
        with pytest.raises(ValueError, match=r"hooks on the bridge, which .* could not record"):
            li.curvature(
                bridge, [random_tokens(8)], patch, checkpoint=tmp_path / "f", progress=False
            )


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"text": "a"}', '{"text": "a", "sums": [1.0]}', "\x00\ufffd"]
)
def test_a_damaged_file_is_named_with_its_line(llama, tmp_path, line):
    path = tmp_path / "sums"
    options = {"layers": [0], "progress": False}
    li.slope_map(llama, [random_tokens(8)], checkpoint=path, **options)
    head = path.read_text().split("\n")[0]
    path.write_text(f"{head}\n{line}\n")
    with pytest.raises(ValueError, match=r"sums is damaged in line 2: remove it"):
        li.slope_map(llama, [random_tokens(8)], checkpoint=path, **options)
    path.write_text(head)
    with pytest.raises(ValueError, match=r"sums is damaged in line 1: remove it"):
        li.slope_map(llama, [random_tokens(8)], checkpoint=path, **options)


def test_a_call_without_predictions_leaves_the_sums_of_others(llama, tmp_path):
    patch, path = li.NextTokenPatch(layer=1, strength=0.5), tmp_path / "sums"
    texts = [random_tokens(8) for _ in range(3)]
    for alone, kept in ((True, False), (False, True)):
        if not alone:
            li.patch_loss(llama, texts, patch, checkpoint=path, progress=False)
        for nothing in ([random_tokens(1)], []):
            with pytest.raises(ValueError, match="there is no text"):
                li.patch_loss(llama, nothing, patch, checkpoint=path, progress=False)
            assert path.exists() is kept


def test_sums_of_nothing_are_not_in_the_way(llama, tmp_path):
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    options = {"checkpoint": tmp_path / "sums", "progress": False, "max_length": 8}

    def stops():
        yield torch.arange(5, 15)
        yield torch.arange(5, 15)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        li.patch_loss(llama, stops(), patch, scopes=["copyable"], **options)
    with pytest.raises(ValueError, match="no text with a token to predict"):
        li.patch_loss(llama, [torch.arange(5, 15)], patch, scopes=["copyable"], **options)
    li.patch_loss(llama, [torch.arange(5, 15)], patch, **options)


def test_a_number_that_is_none_is_known_again(llama, tmp_path):
    patch = li.NextTokenPatch(layer=1, strength=0.5, mode=Capped(torch.nan))
    options = {"checkpoint": tmp_path / "sums", "progress": False}
    found = li.patch_loss(llama, [random_tokens(8)], patch, **options)
    again = li.patch_loss(llama, [random_tokens(8)], patch, **options)
    assert found.losses.shape == again.losses.shape
    other = replace(patch, mode=Capped(1.0))
    with pytest.raises(ValueError, match="differs in patches"):
        li.patch_loss(llama, [random_tokens(8)], other, **options)


def test_each_text_draws_random_tokens_of_its_own(llama):
    """The loss of equal beginnings, in texts of one length that differ in their last token."""

    def beginning(tokens, nats):
        return torch.arange(len(nats)) < len(tokens) - 2

    tokens = random_tokens(10)
    other = torch.cat([tokens[:-1], tokens[-1:] - 1 if tokens[-1] > 4 else tokens[-1:] + 1])
    found = li.slope_map(
        llama,
        [tokens, other, tokens],
        sources=["true", "random"],
        modes=["add"],
        scopes=[beginning],
        max_length=10,
        progress=False,
    )
    assert found.counts[:, 0].tolist() == [8, 8, 8]
    true, random = found.totals[:, 0, 0, 0].transpose(1, 0, 2)
    # What the model itself sees there is the same, to rounding of sums in another order.
    np.testing.assert_allclose(true[0], true[1], rtol=1e-9)
    np.testing.assert_allclose(random[0], random[2], rtol=1e-9)
    assert (abs(random[0] - random[1]) > 1e-3 * abs(random[0])).all()


def test_what_is_not_finite_is_refused_and_goes_into_no_file(llama, tmp_path):
    def broken(site):
        return torch.full_like(site.resid, torch.nan)

    patch = li.NextTokenPatch(layer=1, strength=1e308)
    file = tmp_path / "sums.jsonl"
    with pytest.raises(ValueError, match="a loss is not a number"):
        li.rescue(llama, [random_tokens(6).repeat(2)], patch, checkpoint=file, progress=False)
    with pytest.raises(ValueError, match=r"measured on texts \[0, 1\] is not finite"):
        li.slope_map(llama, list(random_tokens(2, 12)), sources=[broken], progress=False)
    assert not file.exists() or "NaN" not in file.read_text()
