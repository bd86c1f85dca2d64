"""A question that the rows of an experiment answer."""

from dataclasses import dataclass

from ..engine.results import Tables
from .totals import Measure, Totals, totals_of


@dataclass(frozen=True)
class Question:
    """A question of an experiment about the true source against its controls.

    Attributes:
        name: short.
        text: the question as a reader would ask it.
        table: the name of the rows that answer it.
        measure: the measure that answers it.
        material: the material that it is measured on, in words.
    """

    name: str
    text: str
    table: str
    measure: Measure
    material: str

    def totals(self, rows: Tables, half: str) -> Totals:
        """Sums of the measure per arm and cluster, over one half of the material."""
        return totals_of(rows[self.table], self.measure, half)
