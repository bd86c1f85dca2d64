"""Texts and what kind of text they are."""

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


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, or a passage, and what kind of text it is."""

    text: str
    register: str
