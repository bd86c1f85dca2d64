"""The fields of a patch, checked when it is made, before any model is known."""

import math
import reprlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, cast, get_args

from torch import Tensor
from transformer_lens.tools.analysis import JacobianLens

from ..lens.affine import AffineLens
from ..lens.protocol import Lens
from ..model.argument_types import python_numbers, require_numbers
from .modes import MODES, Mode
from .sources import SOURCES, BackPatch, SourceFunction


@dataclass(frozen=True, kw_only=True)
class PatchFields:
    """The fields of a `NextTokenPatch`, whose docstring has the formulas that they enter.

    Layers and positions are sorted, arrays and tensors of them become tuples, numpy's numbers
    become Python's, and modes and sources of the library become their names. Raises `ValueError`
    if a field makes no sense on any model, and `TypeError` if strength, gate or seed is not a
    Python or numpy number, but for example a tensor.
    """

    layer: int | Sequence[int]
    strength: float
    mode: Literal["interpolate", "add", "correct"] | Mode = "interpolate"
    scale: Literal["raw", "norm", "deviation"] = "raw"
    embedding: Literal["W_E", "W_E_centred", "W_U", "lens"] = "W_E"
    positions: Literal["all", "generated"] | Collection[int] = "all"
    first_position: int = 0
    window: int | None = None
    gate: float | None = None
    gate_on: Literal["lens", "output"] = "lens"
    source: str | SourceFunction = "true"
    seed: int = 0
    lens: Lens | JacobianLens | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", _checked_layer(python_numbers(self.layer)))
        require_numbers(strength=self.strength)
        if self.gate is not None:
            require_numbers(gate=self.gate)
        for name in ("strength", "gate"):
            object.__setattr__(self, name, _as_number(python_numbers(getattr(self, name))))
        if not isinstance(self.seed, Integral) or isinstance(self.seed, bool):
            raise TypeError(f"seed must be an integer, got {self.seed!r:.60}")
        object.__setattr__(self, "seed", int(self.seed))
        if not math.isfinite(self.strength):
            raise ValueError(f"strength must be a finite number, got {self.strength}")
        for name, mode in MODES.items():
            if self.mode is mode:
                object.__setattr__(self, "mode", name)
        for name, source in SOURCES.items():
            if self.source is source.function:
                object.__setattr__(self, "source", name)
        _require_choice("mode", self.mode, MODES, callable_too=True)
        _require_choice("source", self.source, SOURCES, callable_too=True)
        for name in ("scale", "embedding", "gate_on"):
            _require_choice(name, getattr(self, name), choices(name))
        if self.gate_on == "output" and self.gate is None:
            raise ValueError("gate_on='output' needs the gate= that it compares with: give a gate")
        if self.embedding == "lens" and not isinstance(self.lens, AffineLens | JacobianLens):
            raise ValueError(
                "embedding='lens' needs lens= to be an AffineLens, such as fit_affine_lens makes, "
                f"or a JacobianLens; got {self.lens!r}"
            )
        object.__setattr__(self, "positions", _checked_positions(python_numbers(self.positions)))
        if not _is_position(self.first_position):
            raise ValueError(
                f"first_position must be from 0 to 2**63 - 1, got {self.first_position!r:.60}"
            )
        object.__setattr__(self, "first_position", int(self.first_position))
        if self.window is not None:
            if not (_is_position(self.window) and self.window >= 1):
                raise ValueError(
                    f"window must be from 1 to 2**63 - 1 positions, got {self.window!r:.60}"
                )
            object.__setattr__(self, "window", int(self.window))
        if self.gate is not None and math.isnan(self.gate):
            raise ValueError("gate must be a surprisal in nats, got nan")

    @property
    def layers(self) -> tuple[int, ...]:
        """The patched layers, lowest first."""
        return (self.layer,) if isinstance(self.layer, int) else tuple(self.layer)

    @property
    def first_written(self) -> int:
        """The first position that it writes to: a learned write may spare more than the patch."""
        return max(self.first_position, getattr(self.mode, "first_position", 0))

    @property
    def reads_lens(self) -> bool:
        """Whether the patch may read the lens, which costs two products with the unembedding."""
        if self.gate is not None and self.gate_on == "lens":
            return True
        mode = MODES[self.mode] if isinstance(self.mode, str) else self.mode
        source = SOURCES[self.source] if isinstance(self.source, str) else self.source
        return getattr(mode, "reads_lens", True) or getattr(source, "reads_lens", True)

    @property
    def uses_lens(self) -> bool:
        """Whether another `lens` could make another patch."""
        return self.reads_lens or self.embedding == "lens"

    @property
    def reads_unpatched(self) -> bool:
        """Whether the patch must know what the model does without it."""
        return self.gate_on == "output" or isinstance(self.source, BackPatch)

    def window_in(self, length: int) -> int | None:
        """The window in a text of `length` tokens, None where it spans all of the text."""
        return self.window if self.window is not None and self.window < length - 1 else None


def differing(a: PatchFields, b: PatchFields, names: Collection[str]) -> list[str]:
    """Those of the named fields in which two patches differ."""
    return [name for name in names if not _same(name, getattr(a, name), getattr(b, name))]


def _same(name: str, ours: object, theirs: object) -> bool:
    # Lenses, and modes and sources of a user, may hold tensors, which do not compare.
    compares = name not in ("lens", "mode", "source") or isinstance(ours, (str, BackPatch))
    return ours is theirs or (compares and ours == theirs)


def _checked_layer(given: Any) -> int | tuple[int, ...]:
    """One block, or several in order."""
    several = isinstance(given, Sequence)
    layers = tuple(given) if several else (given,)
    if not layers or not all(map(_is_count, layers)):
        raise ValueError(f"layer must be one or more block numbers from 0 up, got {given!r}")
    if len(set(layers)) < len(layers):
        raise ValueError(f"layer names a block twice: {given}")
    layers = tuple(sorted(map(int, layers)))
    return layers if several else layers[0]


def _checked_positions(given: Any) -> str | tuple[int, ...]:
    """A word that `positions` may be, or numbers in order."""
    if isinstance(given, str):
        _require_choice("positions", given, ("all", "generated"))
        return given
    numbers = tuple(given) if isinstance(given, Iterable) else None
    wrong = given if numbers is None else [i for i in numbers if not _is_position(i)]
    if numbers is None or wrong:
        raise ValueError(
            "positions must be 'all', 'generated' or a list of numbers from the text's first "
            f"token, 0 up; got {wrong!r:.60}"
        )
    return tuple(sorted(set(map(int, numbers))))


def _is_count(value: object) -> bool:
    """Whether it is an integer from 0 up, Python's or numpy's."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _as_number(value: Any) -> Any:
    """A fraction or a number too large for torch as a float."""
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _is_position(value: object) -> bool:
    """Whether it is an integer from 0 up that a tensor of positions can hold."""
    return _is_count(value) and int(cast(int, value)) < 2**63


def choices(name: str) -> tuple[str, ...]:
    """The values that a field of few may have: "scale", "embedding" or "gate_on"."""
    return get_args(PatchFields.__annotations__[name])


def _require_choice(
    name: str, value: object, known: Collection[str], *, callable_too: bool = False
) -> None:
    if (callable_too and callable(value)) or (isinstance(value, str) and value in known):
        return
    listed = ", ".join(repr(choice) for choice in known)
    raise ValueError(
        f"{name} must be one of {listed}{' or a function' if callable_too else ''}; got "
        f"{type(value).__name__ if isinstance(value, Tensor) else reprlib.repr(value)}"
    )
