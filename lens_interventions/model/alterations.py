"""What changes a model's numbers besides its weights, and is in no fingerprint."""

from .kinds import ReadableModel
from .product import product_dtype
from .replaced_forwards import KERNELS_END, forwards_of_user, has_kernels
from .user_hooks import has_user_hooks, lasting_hooks


def alteration(bridge: ReadableModel, *, temporary_hooks: bool = True) -> str | None:
    """What makes a model compute something else than its weights say, in words; None for nothing.

    Numbers of such a model must not be kept under the fingerprint of its weights.

    **Arguments:**

    - `temporary_hooks`: whether these count; False where they are off during the run.
    """
    hooked = has_user_hooks if temporary_hooks else lasting_hooks
    if hooked(bridge):
        return "there are hooks on the bridge"
    if has_kernels(bridge):
        return f"transformers runs kernels in place of some modules ({KERNELS_END})"
    if forwards_of_user(bridge):
        return "a module of the bridge has another forward than its class"
    if product_dtype(bridge.W_E) != bridge.W_E.dtype:
        return "torch.autocast is on"
    return None
