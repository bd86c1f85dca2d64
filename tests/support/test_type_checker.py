"""Wrong types and shapes in the package are noticed while the tests run."""

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from lens_interventions.model.kinds import require_kind
from tests.support.type_checker import checked, jaxtyped


@jaxtyped(typechecker=checked)
def ends(x: Float[Tensor, "batch pos"], n: int, scale: float = 1.0) -> Float[Tensor, "batch n"]:
    return scale * x[:, -n:]


@jaxtyped(typechecker=checked)
def same(x: Float[Tensor, " pos"], n: int) -> Float[Tensor, " pos"]:
    return x[:n]


@jaxtyped(typechecker=checked)
def last(x: Float[Tensor, "batch pos"], n: int) -> Float[Tensor, "batch {n}"]:
    return x[:, -n:]


@jaxtyped(typechecker=checked)
def halved(n: int, by: float = 2.0) -> int:
    return n / by


def test_what_is_right_passes():
    assert ends(torch.ones(2, 3), 2, scale=3).sum() == 12  # an int for a float


def test_a_function_without_arrays_is_checked_too():
    with pytest.raises(TypeCheckError, match="parameter n="):
        halved("4")
    with pytest.raises(TypeCheckError, match=r"return 2\.0 violates"):
        halved(4)


@pytest.mark.usefixtures("as_users_run")
def test_nothing_is_checked_where_checks_are_off():
    assert halved(4) == 2.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: ends(torch.ones(3), 2),
        lambda: ends(torch.ones(2, 3), "2"),
        lambda: ends(torch.ones(2, 3, dtype=torch.long), 2),
    ],
)
def test_wrong_parameters_are_noticed(call):
    with pytest.raises(TypeCheckError, match=r"parameter [xn]="):
        call()


def test_a_result_of_another_length_than_the_parameter_is_noticed():
    assert len(same(torch.ones(3), 3)) == 3
    with pytest.raises(TypeCheckError, match=r"return .* violates"):
        same(torch.ones(3), 2)
    assert len(same(torch.ones(2), 2)) == 2  # what the dimension was is forgotten


def test_a_length_that_is_a_parameter_is_held_to_it():
    assert last(torch.ones(2, 3), 2).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="return value of"):
        last(torch.ones(2, 3), 4)
    with pytest.raises(TypeCheckError, match="parameters of"):
        last(torch.ones(3), 2)


def test_in_the_package_too_beartype_alone_checks_functions_without_arrays():
    # Of the first module that is imported: one that came before the decorator would be slow.
    with pytest.raises(TypeCheckError, match="parameter purpose=2 violates"):
        require_kind("gpt2", str, 2)
