"""Texts, and the kind of text that they are."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text with a title.

    Attributes:
        title: unique within its collection.
        text: the text that a model reads, without the title.
        register: the kind of text.
    """

    title: str
    text: str
    register: str


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, or a passage, with its kind of text."""

    text: str
    register: str
