"""The faster product is the plain one, wherever it is taken."""

from functools import partial

import pytest
import torch

import lens_interventions as li
from lens_interventions.model import product_trials
from lens_interventions.model.product import product, weighted_rows
from lens_interventions.model.product_trials import are_faster, in_order, is_faster
from lens_interventions.model.readout import readout
from tests.support.clean import left_as_found
from tests.support.tiny import tiny_bridge

MANY = 512
TEXT = torch.arange(64)[None].repeat(8, 1)


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 40, generator=generator) for n in (7, 301)]


@pytest.mark.usefixtures("always_faster")
def test_it_is_the_product_to_float32_rounding(factors):
    x, weight = factors
    expected = x.double() @ weight.double().T
    out = torch.empty(expected.shape)
    for found in (
        product(x, weight, fast=True),
        product(x, weight, fast=True, out=out),
        product(x.T.contiguous().T, weight, fast=True),
        product(x, weight.T.contiguous().T, fast=True),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    bias = weight[:, 0].contiguous()
    for fast in (False, True):
        for given in (None, out):
            found = product(x, weight, fast=fast, bias=bias, out=given)
            torch.testing.assert_close(found.double(), expected + bias, rtol=0, atol=2e-5)
    assert product(x, weight, fast=True, out=out) is out


@pytest.mark.parametrize("fast", [True, False])
def test_weighted_rows_are_the_product_to_float32_rounding(factors, fast):
    x, weight = factors
    found = weighted_rows(x, weight.T.contiguous(), fast=fast).double()
    torch.testing.assert_close(found, x.double() @ weight.double().T, rtol=0, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 5), ()])
def test_an_average_is_as_exact_for_one_row_as_for_many(shape, threads, request):
    """Of as many rows as SmolLM2's embedding, which have something in common."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    weight = 0.1 * torch.randn(49_152, 64, generator=generator) + 0.6
    x = (5 * torch.randn(*shape, len(weight), generator=generator)).softmax(-1)
    found = weighted_rows(x, weight, fast=False)
    assert found.shape == (*shape, 64)
    # A few units of float32 in numbers near 0.6.
    torch.testing.assert_close(found.double(), x.double() @ weight.double(), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("always_faster")
def test_gradients_are_those_of_the_plain_product(factors):
    x, weight = factors
    x.requires_grad_()
    (found,) = torch.autograd.grad(product(x, weight, fast=True).square().sum(), x)
    (expected,) = torch.autograd.grad((x @ weight.T).square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.usefixtures("always_faster")
def test_only_a_float32_matrix_in_order_is_faster(factors):
    _, weight = factors
    assert is_faster(weight)
    assert not any(is_faster(w) for w in (weight.double(), weight.bfloat16(), weight.T))


@pytest.mark.usefixtures("always_faster")
def test_a_torch_whose_operator_fails_multiplies_plainly(monkeypatch, factors):
    def fails(*_args):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", fails)
    assert not is_faster(factors[1])


def tensor_float(x):
    """Float32 without the 13 last bits, as TF32 has it."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("shorter", [lambda x: x.bfloat16().float(), tensor_float])
def test_a_product_of_lower_precision_is_not_taken(monkeypatch, factors, shorter):
    plain = torch.ops.mkldnn._linear_pointwise

    def rounded(x, *rest):
        return plain(shorter(x), *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", rounded)
    assert not is_faster(factors[1])


def test_a_process_asks_once_which_is_faster(monkeypatch, factors):
    """So that equal calls take equal products, and have results that are equal to the bit."""

    def answers():
        (few,) = are_faster([factors[1]], rows=4)
        one = in_order(factors[1], 1).is_mkldnn
        return is_faster(factors[1]), few, one

    first = answers()
    monkeypatch.setattr(product_trials, "_seconds", lambda _function: 1 / 0)
    assert answers() == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_average_in_other_precisions_is_the_plain_product(factors, dtype):
    x, weight = factors[0].softmax(-1).to(dtype), factors[1][:40].to(dtype)
    torch.testing.assert_close(weighted_rows(x, weight, fast=False), x @ weight, rtol=0, atol=0)


def test_an_average_has_the_gradient_of_the_plain_product(factors):
    x, weight = factors[0].softmax(-1).requires_grad_(), factors[1][:40]
    (found,) = torch.autograd.grad(weighted_rows(x, weight, fast=False).square().sum(), x)
    (expected,) = torch.autograd.grad((x @ weight).square().sum(), x)
    # Padded rows may be summed in another order: a few units of float32 in numbers up to 16.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "tried"), [(1, 2), (3, 8), (32, 32), (33, 100), (101, 256)])
def test_some_numbers_of_rows_are_tried_for_all(monkeypatch, factors, rows, tried):
    asked = []
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, rows: asked.append(rows))
    list(are_faster([factors[1]], rows=rows))
    assert asked == [tried]


def test_few_rows_and_many_are_asked_about_apart(monkeypatch, factors):
    """Processors are seen on which only the one or only the other is faster."""
    monkeypatch.setattr(product_trials, "_is_faster", lambda _shape, rows: rows == 8)
    answers = [*are_faster([factors[1]], rows=4), *are_faster([factors[1]], rows=400)]
    assert answers == [True, False]
    assert not is_faster(factors[1])


@pytest.mark.parametrize("rows", [4, None])
def test_weights_of_different_shapes_are_asked_about_apart(monkeypatch, factors, rows):
    """On an Intel Xeon, oneDNN multiplies eight rows faster by a wide weight alone.

    On an AMD EPYC, it is clearly faster with many rows by a wide weight alone.
    """
    monkeypatch.setattr(product_trials, "_is_faster", lambda shape, _rows: shape[0] > 8)
    weight = factors[1]
    assert [*are_faster([weight, weight[:4], weight], rows=rows)] == [True, False, True]


@pytest.mark.parametrize("fast", [True, False])
def test_an_average_of_rows_needs_no_denormal_shares(fast):
    generator = torch.Generator().manual_seed(0)
    shares = (30 * torch.randn(7, 400, generator=generator)).softmax(-1)
    weight = torch.randn(400, 24, generator=generator)
    assert (shares.gt(0) & shares.lt(torch.finfo().tiny)).any()
    found = weighted_rows(shares, weight, fast=fast)
    expected = shares.double() @ weight.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert not weighted_rows(shares.clamp(max=1e-31), weight, fast=fast).any()


@pytest.mark.usefixtures("always_faster")
@pytest.mark.parametrize("pays", [True, False])
def test_a_weight_in_order_has_the_same_products(monkeypatch, factors, pays):
    monkeypatch.setattr(product_trials, "_order_pays", lambda _d_in: pays)
    x, weight = factors
    expected = x.double() @ weight.double().T
    for rows, copied in ((1, pays), (2, True), (100, True), (101, False)):
        found = in_order(weight, rows)
        assert (found is weight) == (not copied)
        values = product(x, found, fast=True).double()
        torch.testing.assert_close(values, expected, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("always_faster")
def test_a_readout_for_many_rows_reads_the_same_logits():
    bridge = tiny_bridge("cohere", dtype=torch.float32)
    plain = readout(bridge)
    fast = plain.for_rows(MANY)
    assert fast.fast
    assert not plain.for_rows(MANY - 1).fast
    residual = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fast(residual), plain(residual), rtol=0, atol=1e-5)


CALLS = {
    "lens": lambda bridge: li.logit_lens(bridge, TEXT).entropy,
    "teacher forcing": lambda bridge: li.teacher_forced_log_probs(
        bridge, TEXT, li.NextTokenPatch(layer=1, strength=0.5, mode="correct")
    ),
    "effect map": lambda bridge: (
        li.effect_map(
            bridge,
            TEXT,
            lambda logits: logits.square().sum(),
            patch=li.NextTokenPatch(layer=1, strength=0.5),
            layers=[1],
            positions=[40],
        ).effect
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_after_the_weights_were_edited_reads_the_new_ones(monkeypatch, call):
    """Also an edit through `.data`, which torch counts nowhere."""
    results = {}
    for faster in (True, False):
        monkeypatch.setattr(
            product_trials, "_is_faster", lambda _shape, _rows, answer=faster: answer
        )
        bridge = tiny_bridge("llama", dtype=torch.float32)
        with left_as_found(bridge):
            before = call(bridge)
        bridge.original_model.lm_head.weight.data.mul_(3)
        results[faster] = call(bridge)
        assert not torch.allclose(results[faster], before, rtol=1e-2, equal_nan=True)
    torch.testing.assert_close(results[True], results[False], rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.usefixtures("always_faster")
def test_with_a_constant_weight_it_has_the_gradient_of_the_plain_product(factors):
    x, weight = factors
    bias = weight[:, 0].contiguous()
    x.requires_grad_()
    found = product(x, weight, fast=True, constant=True, bias=bias)
    wide = x.detach().double().requires_grad_()
    expected = wide @ weight.double().T + bias.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    (gradient,) = torch.autograd.grad(found.tanh().sum(), x)
    (exact,) = torch.autograd.grad(expected.tanh().sum(), wide)
    # Two products in float32: 8.4e-6 was the largest difference.
    torch.testing.assert_close(gradient.double(), exact, rtol=0, atol=5e-5)
