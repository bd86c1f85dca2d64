"""Whether something fitted or trained belongs to the weights of a bridge, in whatever dtype."""

from collections.abc import Mapping
from typing import Any

import torch

from .fingerprint import fingerprint
from .kinds import ReadableModel, weight_dtype
from .user_warnings import warn_user

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# The dtype in which weights of the first fingerprint have the second, None if there is none.
_known: dict[tuple[str, str], torch.dtype | None] = {}


def weights_mismatch(
    bridge: ReadableModel, expected: str, what: str, settings: Mapping[str, Any], remedy: str
) -> str | None:
    """None if the bridge has the weights of a fingerprint, else what it has and what to do then.

    Weights that have the fingerprint once they are converted to another dtype count as the same,
    with a `UserWarning`. Those of a bridge in the wider dtype always do; those in the narrower one
    do if they were saved in it, so that widening gives back what the fit saw.

    **Arguments:**

    - `what`: the name of what belongs to the weights `expected`: "lens".
    - `settings`: those of its fit, with the dtype of the weights as "dtype" if it is known.
    - `remedy`: what to do if the weights are others: "fit one with fit_affine_lens".
    """
    found = fingerprint(bridge)
    if found == expected:
        return None
    own = _name(weight_dtype(bridge))
    if (found, expected) not in _known:
        converted = (dtype for dtype in _DTYPES if fingerprint(bridge, dtype) == expected)
        _known[found, expected] = next(converted, None)
    dtype = _known[found, expected]
    if dtype is not None:
        warn_user(
            f"this {what} was fitted for these weights in {_name(dtype)}, and the bridge has them "
            f"in {own}, where residuals are rounded differently: load the model in {_name(dtype)} "
            "to use it as it was fitted",
        )
        return None
    fitted = settings.get("dtype")
    if fitted == own:
        return f"weights {found}: {remedy}"
    if fitted is None:
        return (
            f"weights {found} in {own}: {remedy}, or load the same model in the dtype in which it "
            "was then"
        )
    return (
        f"weights {found} in {own}, but the {what} was fitted in {fitted}, where even the same "
        f"model has other values: load it in {fitted}, or {remedy}"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
