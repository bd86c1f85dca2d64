"""Settings of the slopes experiment."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import pandas as pd

from ...intervention.modes import MODES
from ...intervention.sources import SOURCES, control_names, source_names
from ..design.contrasts import Resampling
from ..design.material import CopyingMaterial
from ..design.setting_checks import require_at_least, require_different
from ..engine.presets import Preset, require_preset

COPIES, NATURAL = "copies", "natural_text"
"""The names of the second copies of random tokens, and of all natural text, among the materials."""

_MEASURABLE = (*control_names(), "final_guess")
_READ_LENS = tuple(name for name, source in SOURCES.items() if source.reads_lens)
_MODES = tuple(name for name, mode in MODES.items() if not getattr(mode, "reads_lens", True))


@dataclass(frozen=True)
class SlopesSettings:
    """Settings of the slopes experiment; `SlopesSettings.preset` makes them.

    Pairs of numbers are (selection, report): one half of the texts chooses cells, and the other
    half gives the reported numbers.

    Attributes:
        texts: the sources of text: "python_reference", "prose", "docstrings", "python_code",
            "standard_library", a path for `materials.read_texts`, or "dataset:NAME:COLUMN" or
            "dataset:NAME:COLUMN:SPLIT".
        documents: the most documents of each text that are read.
        document_tokens: how many tokens of each document are read, from its beginning.
        induction_sequences: how many sequences of random tokens, which are repeated once.
        induction_length: how many tokens are repeated.
        sources: the true source, and the controls that it is compared with. The layer's guess
            cannot be one of them, because it reads the lens, which takes as long as all others
            together.
        modes: the modes, some of "add" and "interpolate".
        embedding: the vectors that stand for tokens in all writes but the linear one, as in
            `NextTokenPatch`.
        curved_sources: sources whose curvature is measured, in the first of the modes.
        curved_every: measure it at every n-th layer, including the last.
        curved_texts: on how many texts of each material of the selection half it is measured.
        step: the strength at which losses, together with those at its negative, give the curvature.
        cells: how many layers are patched on each material, for each of the curved sources.
        rescue_strengths: the strengths of the writes that should make up for a hidden token.
        rescue_sources, head_sources: the true source and the controls of rescue and of head slopes.
            Figures compare with the first control. Reading only through keys, and only through
            values, is measured just for the true source and the first control, at the middle
            strength.
        mechanism_texts: how many texts of the report half rescue and head slopes read, of copies
            and of natural text.
        ceiling_documents: the most documents of each text that a linear write is fitted to, and
            scored on.
        ceiling_tokens: how many tokens of each of these are read; rescue and head slopes take their
            natural text from the second half of them.
        ceiling_every: fit linear writes at every n-th layer, including the last.
        weak: the largest strength for which the bound is stated.
        strongest: the largest strength at which a parabola is trusted.
        smallest_copy, smallest_text: the smallest change of the loss worth talking about on copies
            and on natural text, in nats.
        batch: texts in a unit of work.
        resampling: how intervals are resampled.
        seed: the seed of the texts and of random sources.

    Raises `ValueError` for an unknown source or mode, if there is no source to compare, for sizes
    that leave nothing to measure, or for a text that is called "copies".
    """

    texts: tuple[str, ...] = ("python_reference", "prose")
    documents: tuple[int, int] = (8, 20)
    document_tokens: int = 64
    induction_sequences: tuple[int, int] = (8, 20)
    induction_length: int = 32
    sources: tuple[str, ...] = (
        "true",
        "current",
        "previous",
        "shuffled",
        "random",
        "final_guess",
        "direction",
    )
    modes: tuple[str, ...] = ("add", "interpolate")
    embedding: Literal["W_E", "W_E_centred", "W_U"] = "W_E"
    curved_sources: tuple[str, ...] = ("true", "current", "shuffled")
    curved_every: int = 3
    curved_texts: int = 3
    step: float = 0.005
    cells: int = 3
    rescue_strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    rescue_sources: tuple[str, ...] = ("true", "shuffled", "current")
    head_sources: tuple[str, ...] = ("true", "shuffled", "current")
    mechanism_texts: int = 12
    ceiling_documents: tuple[int, int] = (24, 10)
    ceiling_tokens: int = 128
    ceiling_every: int = 6
    weak: float = 0.03
    strongest: float = 0.1
    smallest_copy: float = 0.05
    smallest_text: float = 0.02
    batch: int = 6
    resampling: Resampling = field(default_factory=lambda: Resampling(n_resamples=4999))
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.sources) - {"true", *_MEASURABLE} | set(self.sources) & set(_READ_LENS)
        if unknown:
            allowed = [name for name in _MEASURABLE if name not in _READ_LENS]
            raise ValueError(
                f"sources must be true and some of {', '.join(allowed)}; got {sorted(unknown)}"
            )
        if "true" not in self.sources or len(set(self.sources)) < max(2, len(self.sources)):
            raise ValueError(
                f"sources must be true and at least one control, each once; got {self.sources}"
            )
        curved = set(self.curved_sources)
        if "true" not in curved or not curved <= set(self.sources) - {"final_guess"}:
            raise ValueError(
                "curved_sources must be true and others of the sources, without final_guess, which "
                f"a patch cannot write; got {self.curved_sources}"
            )
        if not self.modes or not set(self.modes) <= set(_MODES):
            raise ValueError(
                f"modes must be some of {', '.join(_MODES)}, which read no lens; got {self.modes}"
            )
        for name in ("rescue_sources", "head_sources"):
            named = getattr(self, name)
            if named[:1] != ("true",) or len(named) < 2 or not set(named) <= set(source_names()):
                raise ValueError(
                    f"{name} must be true and then controls that a patch can write; got {named}"
                )
        require_different(self, "modes", "curved_sources", "rescue_sources", "head_sources")
        require_at_least(self, 1, "curved_every", "curved_texts", "cells", "mechanism_texts")
        require_at_least(self, 1, "ceiling_every", "batch")
        if len(self.texts) * self.ceiling_documents[0] < 4:
            raise ValueError(
                "a linear write is fitted to at least 4 documents, one of which chooses its ridge; "
                f"got ceiling_documents={self.ceiling_documents} of {len(self.texts)} texts"
            )
        strengths = (self.step, self.weak, self.strongest, *self.rescue_strengths)
        if min(strengths) <= 0 or self.weak > self.strongest or not self.rescue_strengths:
            raise ValueError(
                "strengths must be above 0, and weak no more than strongest; got step "
                f"{self.step}, weak {self.weak}, strongest {self.strongest} and rescue_strengths "
                f"{self.rescue_strengths}"
            )
        if COPIES in self.texts:
            raise ValueError(
                f"the text {COPIES!r} has the name of the random tokens that are copied: write "
                f"./{COPIES}, or rename the file"
            )
        _ = self.material, self.long_material

    @cached_property
    def material(self) -> CopyingMaterial:
        """The random tokens and the natural text, as the copying experiment draws them."""
        return CopyingMaterial(
            induction_sequences=self.induction_sequences,
            induction_length=self.induction_length,
            texts=self.texts,
            documents=self.documents,
            document_tokens=self.document_tokens,
            seed=self.seed,
        )

    @cached_property
    def long_material(self) -> CopyingMaterial:
        """Longer natural text: one half to fit linear writes to, and the other to score them on."""
        return CopyingMaterial(
            texts=self.texts,
            documents=self.ceiling_documents,
            document_tokens=self.ceiling_tokens,
            seed=self.seed,
        )

    def smallest(self, material: str) -> float:
        """The smallest change of the loss worth talking about on a material."""
        return self.smallest_copy if material == COPIES else self.smallest_text

    def curved_layers(self, n_layers: int) -> list[int]:
        """The layers where curvature is measured."""
        return sorted(range(n_layers - 1, -1, -self.curved_every))

    def ceiling_layers(self, n_layers: int) -> list[int]:
        """The layers of linear writes."""
        return sorted(range(n_layers - 1, -1, -self.ceiling_every))

    @staticmethod
    def rescue_layers(n_layers: int) -> list[int]:
        """A third and two thirds of the way up."""
        return sorted({n_layers // 3, 2 * n_layers // 3})

    def best_strength(self, slope: pd.Series, curvature: pd.Series) -> pd.Series:
        """The strength from 0 to `strongest` at which a parabola is lowest."""
        bent = (-slope / curvature).where(curvature > 0, self.strongest)
        return bent.clip(0, self.strongest).where(slope < 0, 0.0)

    @classmethod
    def preset(cls, name: Preset) -> "SlopesSettings":
        """Settings by name: "quick" for a look, "full" to report.

        Raises `ValueError` for another name.
        """
        require_preset(name)
        if name == "quick":
            return cls(
                documents=(4, 8),
                document_tokens=48,
                induction_sequences=(4, 8),
                induction_length=20,
                curved_sources=("true", "current"),
                curved_every=8,
                curved_texts=2,
                cells=1,
                rescue_strengths=(0.03,),
                mechanism_texts=4,
                ceiling_documents=(8, 4),
                ceiling_tokens=64,
                ceiling_every=10,
            )
        return cls()
