"""Hashes that distinguish models, by their weights or by their configs."""

import hashlib
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from .exclusive import exclusive
from .kinds import ReadableModel, inner_model
from .other_weights import name_of_weights

# A parameter is summed in this many stretches of neighbours, and of every so many numbers, a prime:
# parts that are exchanged within a stretch change their places among those.
_STRETCHES, _EVERY = 64, 8191

# Entries of configs that change no number, or that the weights tell.
_NO_NUMBERS = {
    "_name_or_path",
    "device",
    "dtype",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
}

_PRINTED: dict[str, Any] = {
    "edgeitems": 3,
    "linewidth": 75,
    "suppress": False,
    "sign": "-",
    "floatmode": "maxprec",
    "nanstr": "nan",
    "infstr": "inf",
    "formatter": {},
    "legacy": False,
}


@exclusive
def fingerprint(bridge: ReadableModel, dtype: torch.dtype | None = None) -> str:
    """A hash that depends on every value of every parameter, made within milliseconds.

    Large parameters enter as sums of their bits. So a few edits that leave every sum as it was,
    such as two flipped signs in some places, can go unseen.

    While an adapted reader is on, it is the hash of the reader and the weights below it. With a
    `dtype`, it is the hash that the model would have after `.to(dtype)`.
    """
    if name := name_of_weights(bridge):
        return name
    hashed = hashlib.sha256(str(bool(getattr(bridge, "compatibility_mode", False))).encode())
    for name, parameter in sorted(inner_model(bridge).named_parameters()):
        values = parameter.detach()
        if dtype is not None and values.is_floating_point():
            values = values.to(dtype)
        hashed.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        hashed.update(_sums(values))
    return hashed.hexdigest()[:16]


def _sums(tensor: Tensor) -> bytes:
    """Sums of its bits, taken as integers, so no order of summation changes them."""
    bits = tensor.contiguous().reshape(-1).view(torch.uint8)
    # Eight bytes at a time, which must begin where an integer may; what is left over is short.
    if bits.storage_offset() % 8:
        bits = bits.clone()
    numbers = bits[: len(bits) // 8 * 8].view(torch.int64)
    if len(numbers) < _EVERY:
        return bits.cpu().numpy().tobytes()
    if tensor.element_size() == 8:
        # Two changed signs, the highest bits, would cancel in a sum.
        numbers = numbers ^ (numbers >> 31)
    each = len(numbers) // _STRETCHES
    rows = len(numbers) // _EVERY
    parts = (
        numbers[: each * _STRETCHES].view(_STRETCHES, each).sum(1),
        numbers[: rows * _EVERY].view(rows, _EVERY).sum(0),
        numbers[each * _STRETCHES :],
        bits[8 * len(numbers) :],
    )
    return b"".join(part.cpu().numpy().tobytes() for part in parts)


def unembedding_hash(bridge: ReadableModel) -> str:
    """The hash by which checkpoints of the tuned-lens library name an unembedding.

    It hashes numpy's abridged print of the matrix to one digit, as that library's `tensor_hash`
    does, so it survives a change of precision.
    """
    matrix = bridge.W_U.detach().T
    threshold = 1000
    if matrix.numel() > threshold:
        # The print has three rows and columns at each end, and dots for those between.
        threshold = 0
        for axis, size in enumerate(matrix.shape):
            shown = torch.arange(size, device=matrix.device)
            matrix = matrix.index_select(axis, torch.cat([shown[:-3][:4], shown[-3:]]))
    # numpy's defaults, whatever the user has set.
    with np.printoptions(**_PRINTED, threshold=threshold):
        text = np.array_str(matrix.float().cpu().numpy(), precision=1)
    return hashlib.sha256(text.encode()).hexdigest()


def config_hash(bridge: ReadableModel) -> str:
    """A hash of the config: models of the same weights may have other norms or rotations.

    The config is that of transformers, or TransformerLens's for a model without one. What only
    names the model or changes no number does not count.
    """
    config: Any = getattr(inner_model(bridge), "config", None) or bridge.cfg
    values = {name: value for name, value in config.to_dict().items() if name not in _NO_NUMBERS}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_hash(bridge: ReadableModel) -> str:
    """The fingerprint of the weights with the hash of the config, for what is kept of a model.

    Files that go to other machines hold the fingerprint alone, because a config gains entries with
    each version of transformers.
    """
    return f"{fingerprint(bridge)}-{config_hash(bridge)}"


@exclusive
def weights_sha256(bridge: TransformerBridge) -> str:
    """SHA-256 over names, shapes and bytes of all parameters and buffers."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(bridge.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        hashed.update(flat.view(torch.uint8).numpy())
    return hashed.hexdigest()
