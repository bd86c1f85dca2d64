"""Names of sources, modes, embeddings and scopes, which are given by name or as functions."""

from collections.abc import Collection, Sequence

from ..drawing.labels import shorten

LONGEST = 30
"""Characters of a value that labels and figures show, such as of a source that has no name."""


def name_of(given: object) -> str:
    """The name of a source, mode, embedding or scope."""
    return given if isinstance(given, str) else getattr(given, "__name__", repr(given))


def short_name(given: object) -> str:
    """The name of a source or mode, cut to `LONGEST` characters."""
    return shorten(name_of(given), LONGEST)


def function_names(kind: str, given: Sequence[object], known: Sequence[str]) -> tuple[str, ...]:
    """The names of sources, modes or scopes given by name or as functions.

    Raises `ValueError` for an unknown name, a name given twice, an empty list, or what is no list.
    """
    if isinstance(given, str):
        raise ValueError(f"{kind} must be a list, such as [{given!r}]; got {given!r}")
    if not isinstance(given, Collection):
        raise ValueError(f"{kind} must be a list, such as [{name_of(given)}]; got {given!r:.60}")
    names = []
    for each in given:
        if not (callable(each) or each in known):
            raise ValueError(
                f"{kind} must be some of {', '.join(map(repr, known))} or functions; got {each!r}"
            )
        names.append(name_of(each))
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{kind} must be one or more with different names, which a function has from its def; "
            f"got {names}"
        )
    return tuple(names)
