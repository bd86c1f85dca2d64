"""Forms of the patch beyond layer, strength and mode: which positions, which layers, which lens.

A form changes the fields of the `NextTokenPatch` of an arm. To add one, write its entry in
`FORMS`; experiments take forms by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...intervention.losses.scopes import SURPRISING

PLAIN = "plain"

# Above the patch, a window of w takes w + 2 rows per token, and no window takes 2, so 4 costs three
# times as much.
_RECENT = 4


@dataclass(frozen=True)
class Form:
    """A form by name.

    Attributes:
        name: its name in settings and tables.
        words: its name for readers.
        fields: makes the fields of the patch that differ from the plain form, from the layer and
            the number of layers.
        modes: the modes in which it is measured.
        reads_lens: whether it needs a fitted lens.
    """

    name: str
    words: str
    fields: Callable[[int, int], dict[str, Any]]
    modes: tuple[str, ...] = ("add",)
    reads_lens: bool = False


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            PLAIN,
            "every known position",
            lambda _layer, _n: {},
            modes=("interpolate", "add", "correct"),
        ),
        Form(
            "surprised lens",
            f"only where the fitted lens at the layer was surprised by {SURPRISING:g} nats",
            lambda _layer, _n: {"gate": SURPRISING, "gate_on": "lens"},
            reads_lens=True,
        ),
        Form(
            "surprised output",
            f"only where the unpatched output was surprised by {SURPRISING:g} nats",
            lambda _layer, _n: {"gate": SURPRISING, "gate_on": "output"},
            modes=("interpolate", "add"),
        ),
        Form(
            "recent tokens",
            f"only at the last {_RECENT} known positions before each prediction",
            lambda _layer, _n: {"window": _RECENT},
        ),
        Form(
            "layers up",
            "at that layer and every one above",
            lambda layer, n: {"layer": tuple(range(layer, n))},
        ),
        Form(
            "fitted lens",
            "embeddings carried to the layer by a fitted lens",
            lambda _layer, _n: {"embedding": "lens"},
            modes=("add", "correct"),
            reads_lens=True,
        ),
    )
}
"""Every form by its name."""
