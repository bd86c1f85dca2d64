"""The patch that a state describes."""

from collections.abc import Callable, Hashable
from typing import Any, cast

from ..intervention.patch import NextTokenPatch
from .state import State
from .subject import Subject

# Fields of the state that make the patch; the lens and the chosen position are added below.
_SAME_NAMES = (
    "strength",
    "mode",
    "source",
    "scale",
    "embedding",
    "gate",
    "gate_on",
    "window",
    "seed",
)


def chosen_patch(
    subject: Subject, state: State, report: Callable[[float], object] | None = None
) -> NextTokenPatch:
    """The patch, with the lens of the state if the patch uses one.

    If the lens is fitted for it, `report` is called with the share of the fit that is done.

    Raises `ValueError` for what makes no patch of the model.
    """
    fields: dict[str, Any] = {name: getattr(state, name) for name in _SAME_NAMES}
    carried = state.embedding == "lens"
    without_lens = NextTokenPatch(layer=0, **fields | ({"embedding": "W_E"} if carried else {}))
    if carried or without_lens.uses_lens:
        fields["lens"] = subject.chosen_lens(state, report)
    return NextTokenPatch(
        layer=chosen_layer(subject, state),
        positions=cast(Any, _positions(state)),
        # Models park attention in the first token: a patch of it tests their plumbing.
        first_position=0 if _only_position(state) else 1,
        **fields,
    )


def chosen_layer(subject: Subject, state: State) -> int:
    """The patched layer; at four fifths of the depth if the state names none."""
    if state.layer is not None:
        return state.layer
    return int(0.8 * int(subject.bridge.cfg.n_layers))


def patch_key(state: State) -> Hashable:
    """The values that the patch depends on, among states with the same lens."""
    return (state.layer, _positions(state), *(getattr(state, name) for name in _SAME_NAMES))


def patch_code(subject: Subject, state: State) -> str:
    """The patch as Python code, without fields at their defaults.

    Raises `ValueError` for what makes no patch.
    """
    patch, plain = chosen_patch(subject, state), NextTokenPatch(layer=0, strength=0.0)
    said = [f"layer={patch.layer}", f"strength={patch.strength!r}"]
    for name in (*_SAME_NAMES[1:], "first_position"):
        if getattr(patch, name) != getattr(plain, name):
            said.append(f"{name}={getattr(patch, name)!r}")
    if patch.positions != "all":
        listed = patch.positions if isinstance(patch.positions, str) else list(patch.positions)
        said.append(f"positions={listed!r}")
    if patch.lens is not None:
        said.append("lens=lens")
    return f"patch = li.NextTokenPatch({', '.join(said)})"


def _only_position(state: State) -> bool:
    # The page shows this choice in the panel Patch alone, and the next one in Write alone.
    return state.only_position and state.panel == "patch"


def _positions(state: State) -> str | tuple[int, ...]:
    if _only_position(state):
        if state.position is None:
            raise ValueError("choose a position first: click a cell, or a token of the prompt")
        return (state.position,)
    return "generated" if state.only_generated and state.panel == "write" else "all"
