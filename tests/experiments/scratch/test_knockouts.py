"""Knockouts, against hooks of the library on every prefix and against finite differences."""

import pytest
import torch
from torch import nn

from lens_interventions.experiments.design.text_scopes import AS_TRAINED, COPYABLE, SECOND
from lens_interventions.experiments.scratch.arms import ScratchTraining, written_tokens
from lens_interventions.experiments.scratch.knockouts import (
    EVERY,
    FIRST_ORDER,
    LOSS,
    PATHS,
    first_order,
    knockout_rows,
)
from lens_interventions.experiments.scratch.material import Material
from tests.support.small_scratch import SHAPE, small_model, small_network

SEEDS = torch.zeros(1, dtype=torch.long)

# In float64, for logits of about one, after a few products that add up in another order.
ROUNDING = 1e-9


def text(length: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(4, SHAPE.d_vocab, (1, length), generator=generator)


def all_gates(value: float) -> torch.Tensor:
    return torch.full((SHAPE.n_layers, 2, SHAPE.n_heads), value, dtype=torch.float64)


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_open_gates_change_nothing_and_closed_ones_leave_no_write(entry: int) -> None:
    network, tokens = small_network(entry), text()
    source = written_tokens("true", tokens, 5, SEEDS)
    assert torch.equal(network(tokens, source, gates=all_gates(1.0)), network(tokens, source))
    closed = network(tokens, source, gates=all_gates(0.0))
    torch.testing.assert_close(closed, network(tokens, None), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("entry", "block", "head"), [(0, 0, 1), (0, 2, 0), (1, 1, 0), (2, 2, 1)])
@pytest.mark.parametrize("path", PATHS)
def test_a_knockout_is_that_of_hooks_on_every_prefix(
    entry: int, block: int, head: int, path: str
) -> None:
    """The library patches each prefix; hooks give a head the keys of the positions that predict."""
    network, tokens = small_network(entry), text()
    gates = all_gates(1.0)
    gates[block, list(PATHS[path]), head] = 0.0
    found = network(tokens, written_tokens("true", tokens, 5, SEEDS), gates=gates).detach()
    model = small_model(network, "true")
    names = [f"blocks.{block}.attn.hook_{'kv'[place]}" for place in PATHS[path]]
    # What the head had at each position when that position was the last, and so was not patched.
    seen: dict[str, list[torch.Tensor]] = {}

    def without_write(value: torch.Tensor, hook) -> torch.Tensor:
        value = value.clone()
        before = seen.get(hook.name, [])
        seen[hook.name] = [*before, value[:, -1, head]]
        if before:
            value[:, :-1, head] = torch.stack(before, dim=1)
        return value

    for length in range(1, tokens.shape[1] + 1):
        prefix = tokens[:, :length]
        hooks = [(name, without_write) for name in names]
        patched = model.patch.fwd_hooks(model.bridge, prefix) if length > 1 else []
        logits = model.bridge.run_with_hooks(prefix, fwd_hooks=[*patched, *hooks])
        torch.testing.assert_close(found[:, length - 1], logits[:, -1], rtol=0, atol=ROUNDING)


def test_the_first_order_is_the_slope_at_open_gates() -> None:
    network, tokens = small_network(1), text(14)
    training = ScratchTraining(SHAPE.n_layers, 1, "true", seed=5)
    counted = torch.arange(13)[None] > 5
    found = first_order(network, training, tokens, counted)

    def loss(gates: torch.Tensor) -> float:
        source = written_tokens("true", tokens, 5, SEEDS)
        with torch.no_grad():
            logits = network(tokens, source, gates=gates)[:, :-1]
        nats = nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
        return float(nats[counted].sum())

    step = 1e-5
    for place in [(1, 0, 0), (1, 1, 1), (2, 0, 1), (2, 1, 0)]:
        less, more = all_gates(1.0), all_gates(1.0)
        less[place], more[place] = 1 - step, 1 + step
        expected = (loss(less) - loss(more)) / (2 * step)
        # A central difference of step 1e-5 has errors of some 1e-10.
        assert float(found[place]) == pytest.approx(expected, abs=1e-8)
    assert found[0].eq(0).all()  # below the write


def test_rows_tell_every_head_and_all_of_them_at_once() -> None:
    network = small_network(1)
    windows = torch.cat([text(12), text(12).roll(3, dims=1)])
    scopes = {COPYABLE: torch.arange(11).expand(2, -1) > 4}
    material = Material(windows, torch.arange(2), scopes, torch.cat([text(6), text(6)], dim=1))
    training = ScratchTraining(SHAPE.n_layers, 1, "true", seed=5)
    rows = knockout_rows(network, training, material)
    losses = [row for row in rows if row["measured"] == LOSS and row["scope"] == COPYABLE]
    assert len(losses) == 2 * (1 + 3 + 3 * 2 * SHAPE.n_heads)
    knocked_out = {(row["path"], row["block"], row["head"]) for row in losses}
    assert knocked_out == {(path, EVERY, EVERY) for path in (AS_TRAINED, *PATHS)} | {
        (path, block, head) for path in PATHS for block in (1, 2) for head in range(SHAPE.n_heads)
    }
    predicted = {
        (row["scope"], row["path"], row["block"], row["head"]): row
        for row in rows
        if row["measured"] == FIRST_ORDER
    }
    assert len(predicted) == 2 * 3 * 2 * SHAPE.n_heads
    for scope, count in ((COPYABLE, 12), (SECOND, 5)):
        keys, values, both = (predicted[scope, path, 2, 1] for path in PATHS)
        assert both["total"] == pytest.approx(keys["total"] + values["total"], abs=1e-12)
        assert both["count"] == count
