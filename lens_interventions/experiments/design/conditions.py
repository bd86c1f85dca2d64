"""Conditions of a run, as plain values that rows and settings can hold."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...fitting.default_lens import default_affine_lens, default_lens_file
from ...intervention.patch import NextTokenPatch
from ...intervention.sources import SOURCES, BackPatch, control_names
from ...lens.affine import AffineLens
from ...model.alterations import alteration
from ..engine.input_files import Version, file_field, file_version
from .forms import FORMS, PLAIN


@dataclass(frozen=True)
class Cell:
    """A layer, a strength, a mode and a form: one cell of the grid of an effect over depth.

    Attributes:
        layer: the block whose incoming residual is patched.
        strength: `a` of `NextTokenPatch`.
        mode: "interpolate", "add" or "correct".
        form: the name of a form in `forms.FORMS`.
    """

    layer: int
    strength: float
    mode: str
    form: str = PLAIN

    def __str__(self) -> str:
        form = "" if self.form == PLAIN else f", {FORMS[self.form].words}"
        return f"layer {self.layer}, {self.mode} {self.strength:g}{form}"


@dataclass(frozen=True)
class Arm:
    """A condition: no patch, or a source written at a cell.

    Attributes:
        source: "none", or the name of a source of `intervention.sources`.
        layer, strength, mode, form: the cell; -1, 0, "none" and "plain" without a patch.
    """

    source: str
    layer: int
    strength: float
    mode: str
    form: str = PLAIN

    @classmethod
    def at(cls, cell: Cell, source: str = "true") -> "Arm":
        """A source at a cell."""
        return cls(source, cell.layer, cell.strength, cell.mode, cell.form)

    @classmethod
    def tempered(cls, temperature: float) -> "Arm":
        """The unpatched model with its logits divided by a temperature."""
        return cls(TEMPERATURE, -1, temperature, "none")

    @property
    def cell(self) -> Cell:
        """The cell at which the arm patches."""
        return Cell(self.layer, self.strength, self.mode, self.form)

    def columns(self) -> dict[str, Any]:
        """The arm as columns of a row, and as parameters of a unit: `Arm(**columns)`."""
        return asdict(self)


NO_PATCH = Arm("none", -1, 0.0, "none")

BACK_PATCH = "back_patch"
"""The source of arms that write each position's own last residual, as it is without a patch."""

TEMPERATURE = "temperature"
"""The source of arms without a patch whose logits are divided by their strength."""

LONGER = "none-longer"
"""The source of arms without a patch whose network was trained for longer than the others."""

ARM_COLUMNS = tuple(field.name for field in fields(Arm))


@dataclass(frozen=True)
class PatchSettings:
    """Settings that all patches of a run share.

    Attributes:
        scale: "norm" scales written vectors to the length of the residual, "deviation" to its
            distance from the layer's mean residual, both times the strength; "raw" writes the
            embedding as it is.
        embedding: "W_E", "W_E_centred", "W_U" or "lens", which needs `lens`.
        lens: the file of an `AffineLens`. A run keeps its hash, and is not continued with another
            file at this path. The lens carries the embedding "lens" to the layer, and the gate, the
            mode "correct" and the source "guess" read it instead of the logit lens.
        first_position: positions below it are never patched. 1 spares the first token of the text,
            where models park attention in a residual that can be a hundred times longer than the
            others (25,000 against 190 in the middle of the embedded model). A patch of that vector
            would test the model's plumbing and not the idea.
        gate: if given, only positions whose true next token was at least this surprising, in nats,
            are patched. Forms with a gate of their own keep it.
        gate_on: which prediction the gate compares: "lens", that of the lens at the layer, or
            "output", that of the unpatched output.
        seed: the seed of random sources.

    Raises `ValueError` for a `gate_on` of "output" without a gate.
    """

    scale: Literal["raw", "norm", "deviation"] = "norm"
    embedding: Literal["W_E", "W_E_centred", "W_U", "lens"] = "W_E"
    lens: str | None = file_field()
    first_position: int = 1
    gate: float | None = None
    gate_on: Literal["lens", "output"] = "lens"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.gate_on == "output" and self.gate is None:
            raise ValueError("gate_on='output' needs the gate= that it compares with: give a gate")

    def fitted_lens(self) -> AffineLens | None:
        """The lens in the file `lens`, if there is one."""
        return None if self.lens is None else _loaded(self.lens, file_version(self.lens))

    def other_files(
        self, bridge: TransformerBridge, forms: Sequence[str], *, progress: bool
    ) -> dict[str, str]:
        """The files that patches of these forms read and no setting names, for a run's header.

        That is the file of the model's default lens, if a form needs a lens and there is no `lens`.
        If the file is missing, the lens is fitted; `progress` shows a bar.

        Raises `ValueError` if permanent hooks or hooks of torch are on the bridge, a module has
        another forward or runs a kernel of transformers, or `torch.autocast` is on: a lens of those
        is not kept.
        """
        if self.lens is not None or not any(FORMS[form].reads_lens for form in forms):
            return {}
        if altered := alteration(bridge, temporary_hooks=False):
            raise ValueError(
                f"{altered}, and a default lens is kept for weights alone: undo that, or save a "
                "lens that was fitted under it and give its file as the setting lens"
            )
        default_affine_lens(bridge, progress=progress)
        return {"default lens": str(default_lens_file(bridge))}

    def patches(
        self, bridge: TransformerBridge, arms: Sequence[Arm]
    ) -> list[NextTokenPatch | None]:
        """The patch of each arm; None without a patch.

        Forms that need a fitted lens take `lens`, or the model's default lens.
        """
        lens = self.fitted_lens()
        if lens is None and any(FORMS[arm.form].reads_lens for arm in arms):
            # One object for all arms: patches with the same lens read it once.
            lens = default_affine_lens(bridge, progress=False)
        return [self._patch(bridge, arm, lens) for arm in arms]

    def _patch(
        self, bridge: TransformerBridge, arm: Arm, fitted: AffineLens | None
    ) -> NextTokenPatch | None:
        if arm.source in (NO_PATCH.source, TEMPERATURE, LONGER):
            return None
        form, n_layers = FORMS[arm.form], int(bridge.cfg.n_layers)
        fields = {
            "layer": arm.layer,
            "scale": self.scale,
            "embedding": self.embedding,
            "gate": self.gate,
            "gate_on": self.gate_on,
            **form.fields(arm.layer, n_layers),
        }
        return NextTokenPatch(
            strength=arm.strength,
            mode=arm.mode,  # type: ignore[arg-type]
            lens=fitted if form.reads_lens or self.lens is not None else None,
            first_position=self.first_position,
            source=BackPatch(n_layers) if arm.source == BACK_PATCH else arm.source,
            seed=self.seed,
            **fields,
        )


@functools.lru_cache(maxsize=1)
def _loaded(path: str, _version: Version) -> AffineLens:
    return AffineLens.load(path)


def grid(
    layers: Sequence[int],
    strengths: Sequence[float],
    modes: Sequence[str],
    forms: Sequence[str] = (PLAIN,),
) -> list[Cell]:
    """All cells; layers vary slowest."""
    return [Cell(*values) for values in itertools.product(layers, strengths, modes, forms)]


def control_arms(cell: Cell) -> list[Arm]:
    """The controls at a cell, which write there and carry no news of the next token.

    In mode add, the source that writes nothing is no patch, and is left out. The last control is
    `BACK_PATCH`.
    """
    names = [
        source
        for source in control_names()
        if not (cell.mode == "add" and SOURCES[source].role == "no news")
    ]
    return [Arm.at(cell, source) for source in (*names, BACK_PATCH)]


def source_arms(cell: Cell) -> list[Arm]:
    """The true source at a cell, then the controls."""
    return [Arm.at(cell), *control_arms(cell)]


def spread_layers(n_layers: int, n: int) -> tuple[int, ...]:
    """`n` layers spread evenly over the upper three quarters of a model, or all if it has fewer.

    Below these layers the residual stream is still mostly the current token, so a patch would
    replace the input.
    """
    lowest = n_layers // 4
    n = min(n, n_layers - lowest)
    step = (n_layers - 1 - lowest) / max(n - 1, 1)
    return tuple(sorted({round(lowest + i * step) for i in range(n)}))


def layer_at(depth: float, n_layers: int) -> int:
    """The layer at a share of a model's depth."""
    return min(round(depth * n_layers), n_layers - 1)


def arm_label(arm: Arm, *, with_cell: bool = False) -> str:
    """An arm in words."""
    if arm == NO_PATCH:
        return "no patch"
    if arm.source == TEMPERATURE:
        return f"temperature {arm.strength:.3g} alone"
    if arm.source == LONGER:
        return "no patch, trained for longer"
    words = source_words(arm.source)
    return f"{words} ({arm.cell})" if with_cell else words


def source_words(source: str) -> str:
    """What is written, or done instead, in words."""
    others = {BACK_PATCH: "own last residual", TEMPERATURE: "temperature alone"}
    return others.get(source) or SOURCES[source].words


def in_words(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of contrasts with words for the controls that `source` and `minus` name.

    The true source stays `true`, no patch `none`, and other names as they are.
    """
    controls = [name for name in (*SOURCES, BACK_PATCH, TEMPERATURE) if name != "true"]
    known = {name: source_words(name) for name in controls}
    return rows.assign(**{name: rows[name].replace(known) for name in ("source", "minus")})


def condition_label(arm: Arm, rule: str) -> str:
    """An arm and its sampling rule in words."""
    return f"{arm_label(arm, with_cell=True)}, {rule}"
