"""A forward with a packed weight computes what the module does, for every number of rows."""

import pytest
import torch
from torch import nn

import lens_interventions as li
from lens_interventions.model import packed_linear, product_trials
from lens_interventions.model.fast_linears import decoding_forwards
from lens_interventions.model.packed_linear import PackedLinear
from lens_interventions.model.product_trials import are_faster_packed
from lens_interventions.model.replaced_forwards import replaced_forwards
from tests.support.clean import left_as_found
from tests.support.tiny import shared_bridge, tiny_bridge

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")),
    reason="this torch has no MKL",
)

TOKENS = torch.arange(24).reshape(4, 6)
# Sums of float32 in another order.
ROUNDING = 2e-5


@pytest.fixture
def always_faster(monkeypatch):
    """Processors differ in what is faster."""
    monkeypatch.setattr(product_trials, "_is_faster_packed", lambda _shape, _rows: True)


@pytest.fixture
def rows_packed_for(monkeypatch):
    """The numbers of rows that weights were packed for, in turn."""
    pack, asked = packed_linear.packed, []

    def watched(weight, rows):
        asked.append(rows)
        return pack(weight, rows)

    monkeypatch.setattr(packed_linear, "packed", watched)
    return asked


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_it_is_the_product_for_any_rows_and_packs_for_those_that_come_again(bias, rows_packed_for):
    linear = nn.Linear(40, 301, bias=bias)
    forward = PackedLinear(linear)
    turns = [(2, 3)] * 5 + [(7, 1), (6, 1), (1, 6)] + [(5,)] * 3 + [(4,)] + [(5,)] * 5 + [(2, 3)]
    for shape in turns:
        # Not contiguous, as heads that attended may be.
        x = torch.randn(40, *shape).movedim(0, -1)
        found, expected = forward(x), linear.double()(x.double())
        linear.float()
        assert found.shape == expected.shape
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=ROUNDING)
    assert rows_packed_for == [6, 5]


@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("arch", ["llama", "phi"])
def test_generation_is_that_of_plain_products(arch, monkeypatch, rows_packed_for):
    """The blocks from the patch up multiply twice as many rows."""
    bridge = shared_bridge(arch, torch.float32)
    options = {"max_new_tokens": 24, "stop_at_eos": False, "seed": 0, "do_sample": True}
    patch = li.NextTokenPatch(layer=1, strength=0.5)
    with left_as_found(bridge):
        packed = li.generate(bridge, TOKENS, patch, **options)
    assert set(rows_packed_for) == {4, 8}
    monkeypatch.setattr(product_trials, "_is_faster_packed", lambda _shape, _rows: False)
    plain = li.generate(bridge, TOKENS, patch, **options)
    assert packed.tokens.equal(plain.tokens)
    torch.testing.assert_close(packed.log_probs, plain.log_probs, rtol=0, atol=ROUNDING)


@pytest.mark.usefixtures("always_faster")
def test_a_module_has_one_forward_and_that_of_a_packed_weight_before_others(monkeypatch):
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, _rows: True)
    model = tiny_bridge("llama", dtype=torch.float32).original_model
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    forwards = decoding_forwards(model, 4)
    assert {module for module, _ in forwards} == set(linears)
    assert len(forwards) == len(linears)
    assert all(isinstance(forward, PackedLinear) for _, forward in forwards)
    with replaced_forwards(forwards), torch.no_grad():
        assert torch.isfinite(model(TOKENS).logits).all()


@pytest.mark.usefixtures("always_faster")
def test_only_what_is_as_exact_is_packed_and_for_few_rows(monkeypatch):
    weight = torch.randn(301, 40)
    assert [*are_faster_packed([weight, weight.double(), weight.T], rows=4)] == [True, False, False]
    assert [*are_faster_packed([weight], rows=100)] == [True]
    assert [*are_faster_packed([weight], rows=101)] == [False]
    multiply = product_trials.packed_product
    monkeypatch.setattr(
        product_trials, "packed_product", lambda x, *rest: multiply(x.bfloat16().float(), *rest)
    )
    assert [*are_faster_packed([weight], rows=4)] == [False]


@pytest.mark.usefixtures("always_faster")
def test_a_torch_without_the_operator_multiplies_in_another_way(monkeypatch):
    def fails(*_args):
        raise AttributeError("no _mkl_reorder_linear_weight")

    monkeypatch.setattr(product_trials, "packed", fails)
    assert [*are_faster_packed([torch.randn(301, 40)], rows=4)] == [False]


def test_a_trial_compares_it_with_both_other_products(monkeypatch):
    weight, times = torch.randn(303, 41), {}
    monkeypatch.setattr(product_trials, "_least_seconds", lambda *_trials: times[len(times)])
    for seconds, answer in (
        ([8.0, 10.0, 20.0], True),
        ([8.0, 20.0, 10.0], True),
        ([9.5, 10.0, 20.0], False),
        ([8.0, 20.0, 8.5], False),
    ):
        times[len(times) + 1] = seconds
        product_trials._is_faster_packed.cache_clear()
        assert [*are_faster_packed([weight], rows=4)] == [answer]
    product_trials._is_faster_packed.cache_clear()
