"""A learned write: a map, a bias and a gate of each layer, used as the mode of a patch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._files import load_tensors, restored, save_tensors
from ..model.fingerprint import fingerprint
from ..model.gradients import replace_inference_tensors
from ..model.kinds import ReadableModel
from ..model.precision import at_least_float32
from ..model.same_weights import weights_mismatch
from .adapted_reader import AdaptedReader
from .modes import Rows, Scales
from .names import name_of
from .patch import NextTokenPatch
from .site import PatchSite, length_factor
from .sources import SOURCES

_TENSORS = ("down", "up", "bias", "gate_weight", "gate_bias")
_READER, _BASE = "reader.", "base."


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedWrite:
    """A mode: `r + a g (s e M + b)`, with M, b and g of each layer learned.

    `g` is 1, or with an input gate `sigmoid(r w / rms(r) + c)`. What a `base` writes is added,
    times a, also where the write's own source has no token. `patch` makes the patch that it was
    trained in. Binding a patch with this mode raises `ValueError` if the model's weights, the
    source, the embedding or the scale are not those of the training. Making one raises `ValueError`
    for another embedding or scale than those below, for half of a map or of a gate, and for a base
    that has a base.

    Attributes:
        layers: the layers that it was trained to write to, lowest first.
        down: `[layer, d_model, rank]` of `M = down up`; None if M is a full matrix, which is then
            `up`.
        up: `[layer, rank, d_model]`; None if there is no M but only a bias.
        bias: `[layer, d_model]`, `b`, or None.
        gate_weight: `[layer, d_model]`, `w`, or None.
        gate_bias: `[layer]`, `c`, or None.
        trained_with: name of the source.
        source: name of the source that it may be used with, the same unless `for_source` changed
            it.
        embedding: `"W_E"`, `"W_E_centred"` or `"W_U"`, the vectors that stand for tokens.
        scale: `"raw"` to read them as they are, `"norm"` to read them as long as the residual.
        first_position: positions below it stay as they are.
        fingerprint: hash of the weights of the model that it was trained on, including the updates
            of a reader.
        settings: how it was trained.
        reader: the updates that the attention above learned together with it, or None. A write with
            a reader can only be used inside `with write.reader.on(bridge)`.
        base: a write that was learned before and kept fixed, or None. It always reads its own
            source, whatever `for_source` or the patch say.
    """

    layers: tuple[int, ...]
    down: Float[Tensor, "layer d_model rank"] | None = field(repr=False)
    up: Float[Tensor, "layer rank d_model"] | None = field(repr=False)
    bias: Float[Tensor, "layer d_model"] | None = field(repr=False)
    gate_weight: Float[Tensor, "layer d_model"] | None = field(default=None, repr=False)
    gate_bias: Float[Tensor, " layer"] | None = field(default=None, repr=False)
    trained_with: str
    source: str
    embedding: Literal["W_E", "W_E_centred", "W_U"]
    scale: Literal["raw", "norm"]
    first_position: int
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    reader: AdaptedReader | None = None
    base: "LearnedWrite | None" = None

    # What labels and tables call a mode, as they do a function.
    __name__ = "learned write"

    def __post_init__(self) -> None:
        replace_inference_tensors(self)
        require_learnable(self.embedding, self.scale)
        if self.base is not None and self.base.base is not None:
            raise ValueError(
                "the base has a base of its own, which would not be written: learn an increment on "
                "a write without one"
            )
        if (self.gate_weight is None) != (self.gate_bias is None):
            raise ValueError("a gate has a weight and a bias; one of the two is missing")
        if self.down is not None and self.up is None:
            raise ValueError("a map down needs one up, which is missing")
        if self.up is not None and self.down is None and self.up.shape[1] != self.up.shape[2]:
            raise ValueError("a map up from a rank needs one down to it, which is missing")

    @property
    def reads_lens(self) -> bool:
        """Whether the mode itself asks for the lens, as a base does whose source is the guess."""
        return self.base is not None and self.base.patch().reads_lens

    @property
    def writes_everywhere(self) -> bool:
        """Whether it writes where its source has no token: there a base writes alone."""
        return self.base is not None

    def __call__(self, site: PatchSite, e: Rows, s: Scales, a: float) -> Rows:
        """The patched rows, for vectors `e` to write, their scale `s` and the strength `a`."""
        resid = site.resid
        written = self._written(site, e, s)
        if self.base is not None:
            ids = SOURCES[self.source].function(site)
            written = _where_something(ids, written) + self.base._own_written(site)
        patched = resid + (a * written).to(resid.dtype)
        return torch.where((site.position < self.first_position)[..., None], resid, patched)

    def _own_written(self, site: PatchSite) -> Rows:
        """What it writes for its own source; zero where that source writes nothing."""
        ids = SOURCES[self.source].function(site)
        e = ids if ids.is_floating_point() else site.embedding(ids.clamp(min=0))
        s = torch.ones_like(e[..., :1]) if self.scale == "raw" else length_factor(site.resid, e)
        return _where_something(ids, self._written(site, e, s))

    def _written(self, site: PatchSite, e: Rows, s: Scales) -> Rows:
        """`g (s e M + b)`, in float32 at least."""
        index, resid = self.layers.index(site.layer), site.resid
        # In half precision the sum is rounded, and not the numbers that it is computed from.
        wide = resid.to(at_least_float32(resid.dtype))

        def of_layer(stack: Tensor) -> Tensor:
            return stack[index].to(wide.device, wide.dtype)

        written = torch.zeros_like(wide)
        if self.up is not None:
            rows = s.to(wide) * e.to(wide)
            rows = rows if self.down is None else rows @ of_layer(self.down)
            written = rows @ of_layer(self.up)
        if self.bias is not None:
            written = written + of_layer(self.bias)
        if self.gate_weight is not None and self.gate_bias is not None:
            unit = torch.nn.functional.normalize(wide, dim=-1) * wide.shape[-1] ** 0.5
            level = unit @ of_layer(self.gate_weight) + of_layer(self.gate_bias)
            written = torch.sigmoid(level)[..., None] * written
        return written

    def patch(self, **fields: Any) -> NextTokenPatch:
        """The patch that it was trained in, at strength 1.

        `fields` sets further fields of `NextTokenPatch`, such as `strength`, `window` or
        `positions`.
        """
        own: dict[str, Any] = {
            "layer": self.layers[0] if len(self.layers) == 1 else self.layers,
            "strength": 1.0,
            "source": self.source,
            "embedding": self.embedding,
            "scale": self.scale,
            "first_position": self.first_position,
        }
        return NextTokenPatch(**{**own, **fields, "mode": self})

    def for_source(self, source: str) -> "LearnedWrite":
        """The same write for a source that it was not trained with, to see what it does with it.

        Raises `ValueError` if no source has the name.
        """
        if source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}; got {source!r}")
        return replace(self, source=source)

    def require_fits(self, bridge: ReadableModel, patch: NextTokenPatch) -> None:
        """Raise `ValueError` unless the write may be used in this patch of this bridge."""
        if self.reader is not None and fingerprint(bridge) == self.reader.fingerprint:
            raise ValueError(
                "this write was trained together with a reader, which is off: use it inside "
                "`with write.reader.on(bridge):`"
            )
        other = weights_mismatch(
            bridge, self.fingerprint, "write", self.settings, "train one with train_patch"
        )
        if other is not None:
            raise ValueError(
                f"this write was trained on {self.settings.get('model')} with weights "
                f"{self.fingerprint}, the bridge is {bridge.cfg.model_name} with {other}"
            )
        asked = name_of(patch.source)
        if asked != self.source:
            raise ValueError(
                f"this write was trained with the source {self.trained_with!r} and is for "
                f"{self.source!r}, but the patch has {asked!r}: use write.patch(), or "
                f"write.for_source({asked!r}).patch() to see what it does with another source"
            )
        if (patch.embedding, patch.scale) != (self.embedding, self.scale):
            raise ValueError(
                f"this write reads embedding={self.embedding!r} with scale={self.scale!r}, but the "
                f"patch has {patch.embedding!r} and {patch.scale!r}: use write.patch()"
            )
        others = sorted(set(patch.layers) - set(self.layers))
        if others:
            raise ValueError(
                f"this write was trained for layers {list(self.layers)}, but the patch has {others}"
            )

    def digest(self) -> str:
        """A hash of everything that `save` would write."""
        tensors, rest = self._parts()
        hashed = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
        for name in sorted(tensors):
            hashed.update(name.encode() + tensors[name].cpu().numpy().tobytes())
        return hashed.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, in float32, including reader and base if there are any.

        Raises `OSError` if the file cannot be written.
        """
        tensors, rest = self._parts()
        save_tensors(path, tensors, kind="write", rest=rest)

    def _parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The contents of a file: tensors, and values for JSON."""
        tensors = {
            name: getattr(self, name).detach().float().contiguous()
            for name in _TENSORS
            if getattr(self, name) is not None
        }
        rest = {
            "layers": self.layers,
            "trained_with": self.trained_with,
            "source": self.source,
            "embedding": self.embedding,
            "scale": self.scale,
            "first_position": self.first_position,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
        }
        if self.reader is not None:
            tensors |= {_READER + key: value for key, value in self.reader.tensors().items()}
            rest["reader"] = self.reader.fingerprint
        if self.base is not None:
            below, rest["base"] = self.base._parts()
            tensors |= {_BASE + key: value for key, value in below.items()}
        return tensors, rest

    @classmethod
    def load(cls, path: str | Path) -> "LearnedWrite":
        """Read what `save` wrote.

        Raises `FileNotFoundError` if there is no file, and `ValueError` if it is of another kind.
        """
        return cls._of_parts(path, *load_tensors(path, kind="write"))

    @classmethod
    def _of_parts(
        cls, path: str | Path, kept: Mapping[str, Tensor], rest: Mapping[str, Any]
    ) -> "LearnedWrite":
        rest = dict(rest)
        tensors: dict[str, Any] = {name: kept.get(name) for name in _TENSORS}
        for name in kept:
            if name not in _TENSORS and not name.startswith((_READER, _BASE)):
                raise ValueError(f"{path} is damaged: a learned write has no {name}")
        if parts := _without(_READER, kept):
            weights = rest.pop("reader", None)
            if not isinstance(weights, str):
                raise ValueError(f"{path} is damaged: its reader was trained on {weights!r}")
            try:
                tensors["reader"] = AdaptedReader.from_tensors(parts, weights)
            except ValueError as error:
                raise ValueError(f"{path} is damaged: {error}") from error
        if "base" in rest:
            tensors["base"] = cls._of_parts(path, _without(_BASE, kept), rest.pop("base"))
        write = restored(
            cls,
            path,
            rest | tensors,
            *(("layers", name) for name in _TENSORS),
        )
        layers = write.layers
        if not layers or min(layers) < 0 or list(layers) != sorted(set(layers)):
            raise ValueError(f"{path} is damaged: its layers are {layers}")
        if write.first_position < 0:
            raise ValueError(f"{path} is damaged: its first_position is {write.first_position}")
        if unknown := {write.source, write.trained_with} - set(SOURCES):
            raise ValueError(f"{path} is damaged: there is no source {unknown.pop()!r}")
        return write


def require_learnable(embedding: str, scale: str) -> None:
    """Raise `ValueError` for an embedding or a scale that a patch has and a learned write has not.

    Both would need a lens or the mean residuals, which are not in its file.
    """
    if embedding not in ("W_E", "W_E_centred", "W_U") or scale not in ("raw", "norm"):
        raise ValueError(
            "a learned write reads embedding 'W_E', 'W_E_centred' or 'W_U' with scale 'raw' or "
            f"'norm', got {embedding!r} with {scale!r}"
        )


def _where_something(found: Tensor, written: Rows) -> Rows:
    """What is written: zero where `found` is -1, because the source has no token there."""
    return written if found.is_floating_point() else written.where((found >= 0)[..., None], 0)


def _without(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with a prefix, which is cut off."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
