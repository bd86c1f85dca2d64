"""The sections of the page, in order."""

from collections.abc import Callable

from .convergence import convergence
from .discarding import discarding
from .fitted import fitted
from .plasma import plasma
from .rarity import rarity
from .readings import Readings
from .repetition import repetition
from .section import Section
from .seeing import seeing

SECTIONS: tuple[Callable[[Readings], Section], ...] = (
    convergence,
    discarding,
    plasma,
    fitted,
    repetition,
    rarity,
    seeing,
)
