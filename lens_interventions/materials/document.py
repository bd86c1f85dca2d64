"""A text with its title and its kind."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text with a title.

    Attributes:
        title: unique within its collection.
        text: what a model reads; the title is no part of it.
        register: what kind of text it is.
    """

    title: str
    text: str
    register: str
