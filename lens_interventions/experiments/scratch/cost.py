"""The cost of a training step, from the shape of the network."""

from ..design.small_networks.shape import Shape


def step_flops(shape: Shape, entry: int | None, batch: int) -> int:
    """Floating-point operations of the products in a step on `batch` texts of a full context.

    A product of two matrices counts two operations for each term, attention scores count in full,
    and a backward pass costs two forward passes. `entry` is the block that a patched stream enters;
    None without a write.
    """
    of_block = 24 * shape.d_model**2 + 4 * shape.context * shape.d_model
    of_token = shape.n_layers * of_block + 2 * shape.d_model * shape.d_vocab
    if entry is not None:
        # The patched copy: a write, whole blocks, and keys and values in the last.
        of_write, of_keys = 2 * shape.d_model**2, 4 * shape.d_model**2
        of_token += of_write + (shape.n_layers - 1 - entry) * of_block + of_keys
    return 3 * of_token * batch * shape.context


def steps_for_equal_flops(shape: Shape, entry: int, steps: int) -> int:
    """How many steps without a write cost as much as `steps` steps with one at `entry`."""
    return round(steps * step_flops(shape, entry, 1) / step_flops(shape, None, 1))
