"""A reader that adapted: blocks that learned to read what a patch writes."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..model.exclusive import exclusive_use
from ..model.fingerprint import fingerprint
from ..model.other_weights import Linear, attention_inputs, matrix, mlp_matrices, other_weights

Adapt = Literal["attention", "attention+mlp"]
"""What a reader changes in each block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdaptedReader:
    """Low-rank updates of a model's blocks, learned together with a write or for a fixed one.

    `W <- W + up down` in the matrices that make queries, keys and values, and possibly in those of
    the MLP, in every block from the lowest patched layer up (LoRA, Hu et al. 2021). The updates act
    on every position, patched or not: with the reader on, the bridge is another model, and patches
    work on it as on any. To measure how much a write helps a reader, compare the two with a reader
    that was trained for as long without a write.

    Attributes:
        down: `[rank, d_in]`, by block and matrix: "22.q", "22.k", "22.v", and for the MLP
            "22.in", "22.out" and, if it has one, "22.gate".
        up: `[d_out, rank]`, by the same names.
        fingerprint: hash of the weights of the model that it was trained on.
    """

    down: Mapping[str, Float[Tensor, "rank d_in"]] = field(repr=False)
    up: Mapping[str, Float[Tensor, "d_out rank"]] = field(repr=False)
    fingerprint: str

    @contextmanager
    def on(self, bridge: TransformerBridge) -> Iterator[TransformerBridge]:
        """The bridge with the reader, for as long as the `with` lasts.

        Whatever runs the bridge inside runs the adapted model: hooks, teacher forcing, generation,
        lenses and experiments. The weights come back bit for bit. Until then, other threads that
        want the model wait.

        **Yields:** the bridge.

        Raises `ValueError` if the bridge has other weights than the one that the reader was trained
        on, or has a reader on already.
        """
        with exclusive_use(bridge):
            found = fingerprint(bridge)
            if found != self.fingerprint:
                raise ValueError(
                    f"this reader was trained on weights {self.fingerprint}, the bridge has "
                    f"{found}: use it on the model that it was trained on, without another reader"
                )
            with torch.no_grad():
                weights = adapted_weights(bridge, self.down, self.up)
            with other_weights(bridge, weights, self.name, of_user=True):
                yield bridge

    @property
    def name(self) -> str:
        """The fingerprint of the model with the reader on, the same after saving and loading."""
        hashed = hashlib.sha256(self.fingerprint.encode())
        for key, tensor in sorted(self.tensors().items()):
            hashed.update(f"{key}{tuple(tensor.shape)}".encode())
            hashed.update(tensor.cpu().numpy().tobytes())
        return hashed.hexdigest()[:16]

    def tensors(self) -> dict[str, Float[Tensor, "_ _"]]:
        """All tensors in float32, by names such as "down.22.q"."""
        return {
            f"{kind}.{key}": tensor.detach().float().contiguous()
            for kind, tensors in (("down", self.down), ("up", self.up))
            for key, tensor in tensors.items()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], fingerprint: str) -> "AdaptedReader":
        """The reader whose `tensors` these are, for the model with this `fingerprint`.

        Raises `ValueError` if `tensors` are not those of a reader.
        """
        kinds: dict[str, dict[str, Tensor]] = {"down": {}, "up": {}}
        for name, tensor in tensors.items():
            kind, _, key = name.partition(".")
            kinds.setdefault(kind, {})[key] = tensor
        down, up = kinds.pop("down"), kinds.pop("up")
        fits = down.keys() == up.keys() and all(
            up[key].ndim == down[key].ndim == 2 and up[key].shape[1] == down[key].shape[0]
            for key in down
        )
        blocks = [key.partition(".")[0] for key in down]
        known = not kinds and fits and all(map(str.isdecimal, blocks))
        real = all(tensor.is_floating_point() for tensor in tensors.values())
        # All read the residual stream, but for an MLP's output matrix, which writes to it.
        if not (known and real and len({_width(key, down, up) for key in down}) == 1):
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            raise ValueError(f"these are not the tensors of a reader: {shapes}")
        return cls(down=down, up=up, fingerprint=fingerprint)


def adapted_modules(bridge: TransformerBridge, adapt: Adapt, layer: int) -> dict[str, Linear]:
    """The modules that a reader changes in blocks from `layer` up, by names such as "22.q".

    Raises `NotImplementedError` for a model whose blocks have no such modules, and `ValueError` if
    `adapt` is unknown.
    """
    require_adapt(adapt)
    parts = [attention_inputs, mlp_matrices] if adapt == "attention+mlp" else [attention_inputs]
    return {
        f"{block}.{name}": linear
        for block in range(layer, int(bridge.cfg.n_layers))
        for matrices in parts
        for name, linear in matrices(bridge, block).items()
    }


def _width(key: str, down: Mapping[str, Tensor], up: Mapping[str, Tensor]) -> int:
    return up[key].shape[0] if key.endswith(".out") else down[key].shape[1]


def require_adapt(adapt: str) -> None:
    """Raise `ValueError` if `adapt` is none of the parts that a reader may change."""
    known = get_args(Adapt)
    if adapt not in known:
        raise ValueError(f"adapt must be {' or '.join(map(repr, known))}; got {adapt!r}")


def adapted_weights(
    bridge: TransformerBridge,
    down: Mapping[str, Float[Tensor, "rank d_in"]],
    up: Mapping[str, Float[Tensor, "d_out rank"]],
) -> dict[Linear, Float[Tensor, "d_out d_in"]]:
    """`W + up down` of every module that these are for, in the model's precision.

    It is a differentiable function of both factors.

    Raises `ValueError` if the model has no such module, or one of another shape.
    """
    weights = {}
    for key, low in down.items():
        block, _, name = key.partition(".")
        matrices = attention_inputs if name in ("q", "k", "v") else mlp_matrices
        linear = matrices(bridge, int(block)).get(name)
        shape = (up[key].shape[0], low.shape[1])
        if linear is None or matrix(linear).shape != shape:
            raise ValueError(f"the model has no {key} of shape {shape}, which this reader changes")
        own = matrix(linear)
        change = up[key].to(own.device) @ low.to(own.device)
        wide = torch.promote_types(own.dtype, change.dtype)
        weights[linear] = (own.to(wide) + change).to(own.dtype)
    return weights
