"""Conditions: what is patched in a run, as plain values that rows and settings can hold."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ...intervention.patch import NextTokenPatch
from ...intervention.sources import SOURCES, control_names
from ...lens.affine import AffineLens


@dataclass(frozen=True)
class Cell:
    """A layer, a strength and a mode: one cell of the grid of an effect over depth.

    Attributes:
        layer: the block whose incoming residual is patched.
        strength: `a` of `NextTokenPatch`.
        mode: "interpolate", "add" or "correct".
    """

    layer: int
    strength: float
    mode: str

    def __str__(self) -> str:
        return f"layer {self.layer}, {self.mode} {self.strength:g}"


@dataclass(frozen=True)
class Arm:
    """A condition: no patch, or a source written at a cell.

    Attributes:
        source: "none", or the name of a source of `intervention.sources`.
        layer, strength, mode: the cell; -1, 0 and "none" without a patch.
    """

    source: str
    layer: int
    strength: float
    mode: str

    @classmethod
    def at(cls, cell: Cell, source: str = "true") -> "Arm":
        """A source at a cell."""
        return cls(source, cell.layer, cell.strength, cell.mode)

    @property
    def cell(self) -> Cell:
        """Where the arm patches."""
        return Cell(self.layer, self.strength, self.mode)

    def columns(self) -> dict[str, Any]:
        """The arm as columns of a row, and as parameters of a unit: `Arm(**columns)`."""
        return asdict(self)


NO_PATCH = Arm("none", -1, 0.0, "none")

ARM_COLUMNS = tuple(field.name for field in fields(Arm))


@dataclass(frozen=True)
class PatchSettings:
    """The settings that all patches of a run have in common.

    Attributes:
        scale: "norm" writes vectors as long as the residual times the strength; "deviation" as long
            as its distance from the layer's mean residual; "raw" writes the embedding as it is.
        embedding: "W_E", "W_U" or "lens", the latter with `lens`.
        lens: the file of an `AffineLens`, which must not change while a run is unfinished. It
            carries the embedding "lens" to the layer, and the gate, the mode "correct" and the
            source "guess" read it in place of the logit lens.
        first_position: positions below are never patched. With 1 the first token of the text is
            spared: models park attention there, in a residual that can be a hundred times longer
            than the others (25,000 against 190 in the middle of the default model), and a patch
            of that vector tests the model's plumbing and not the idea.
        gate: if given, only positions are patched whose true next token surprised the lens at the
            layer by at least so many nats.
        seed: of the random sources.
    """

    scale: Literal["raw", "norm", "deviation"] = "norm"
    embedding: Literal["W_E", "W_U", "lens"] = "W_E"
    lens: str | None = None
    first_position: int = 1
    gate: float | None = None
    seed: int = 0

    def patch(self, arm: Arm, length: int) -> NextTokenPatch | None:
        """The patch of an arm for texts of up to `length` tokens; None without a patch."""
        if arm.source == "none":
            return None
        return NextTokenPatch(
            layer=arm.layer,
            strength=arm.strength,
            mode=arm.mode,  # type: ignore[arg-type]
            scale=self.scale,
            embedding=self.embedding,
            lens=None if self.lens is None else _loaded(self.lens),
            positions=tuple(range(self.first_position, length)),
            gate=self.gate,
            source=arm.source,
            seed=self.seed,
        )


@functools.lru_cache(maxsize=1)
def _loaded(path: str) -> AffineLens:
    # One object for all arms: patches with the same lens read it once.
    return AffineLens.load(path)


def grid(layers: Sequence[int], strengths: Sequence[float], modes: Sequence[str]) -> list[Cell]:
    """All cells, layers slowest."""
    return [Cell(*values) for values in itertools.product(layers, strengths, modes)]


def control_arms(cell: Cell) -> list[Arm]:
    """The controls at a cell: they write there what carries no news of the next token.

    In mode add what writes nothing is no patch, and left out.
    """
    return [
        Arm.at(cell, source)
        for source in control_names()
        if not (cell.mode == "add" and SOURCES[source].role == "no news")
    ]


def source_arms(cell: Cell) -> list[Arm]:
    """The true source at a cell, then the controls."""
    return [Arm.at(cell), *control_arms(cell)]


def spread_layers(n_layers: int, n: int) -> tuple[int, ...]:
    """`n` layers spread evenly over the upper three quarters of a model, or all if it has fewer.

    Below them the residual stream is still mostly the current token, and a patch would replace the
    input.
    """
    lowest = n_layers // 4
    n = min(n, n_layers - lowest)
    step = (n_layers - 1 - lowest) / max(n - 1, 1)
    return tuple(sorted({round(lowest + i * step) for i in range(n)}))


def arm_label(arm: Arm, *, with_cell: bool = False) -> str:
    """An arm in words."""
    if arm == NO_PATCH:
        return "no patch"
    words = SOURCES[arm.source].words
    return f"{words} ({arm.cell})" if with_cell else words


def condition_label(arm: Arm, rule: str) -> str:
    """An arm and its sampling rule in words."""
    return f"{arm_label(arm, with_cell=True)}, {rule}"
