"""Materials written for this library, kept beside this module as JSON and plain text."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from .document import Document

_PARTS: dict[Literal["near", "far"], tuple[str, ...]] = {
    "near": ("opening", "cue"),
    "far": ("opening", "filler", "cue"),
}


@dataclass(frozen=True)
class Template:
    """A text that stops where a sensible reader goes on with a word said before.

    Attributes:
        frame: name of the sentences around the word.
        group: what kind of word fits the frame; frames and words are crossed within a group.
        word: the word.
        frequency: "common" or "rare" in English; the tokenizer decides how many tokens it has.
        distance: "near" if the copy is in the sentence after the word, "far" if a sentence or two
            about something else lie between.
        prefix: the text up to the copy, without a space at its end.
    """

    frame: str
    group: str
    word: str
    frequency: Literal["common", "rare"]
    distance: Literal["near", "far"]
    prefix: str

    @property
    def continuation(self) -> str:
        """What comes after `prefix`: a space and the word."""
        return f" {self.word}"


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, or a passage, and what kind of text it is."""

    text: str
    register: str


def templates() -> tuple[Template, ...]:
    """Sentences that end where a word from before is due, like the post's about plasma.

    384 of them: 6 groups of 4 frames and 8 words, 4 common and 4 rare, every word in every frame
    of its group, near and far. Rarity is thus not confounded with what the sentence says. The rare
    words were chosen so that common tokenizers keep some whole and split others.

    Items share frames and words, so they are not independent: resample frames or words, or average
    over one of them first.
    """
    data = _json("templates.json")
    return tuple(
        Template(
            frame["name"],
            frame["group"],
            word,
            frequency,
            distance,
            " ".join(frame[part] for part in parts).format(word=word),
        )
        for frame in data["frames"]
        for frequency, words in data["words"][frame["group"]].items()
        for word in words
        for distance, parts in _PARTS.items()
    )


def prompts() -> tuple[Prompt, ...]:
    """72 open-ended beginnings of 5 to 25 words, 4 in each of 18 registers."""
    return _by_register("prompts.json")


def passages() -> tuple[Prompt, ...]:
    """16 passages of one or two sentences that can be repeated, in 12 registers."""
    return _by_register("passages.json")


def prose() -> tuple[Document, ...]:
    """40 short texts of about 100 words in varied registers, for the loss on held-out English."""
    documents = _read("prose.txt").strip().split("\n\n")
    heads_and_texts = [document.split("\n", 1) for document in documents]
    return tuple(
        Document(title, text, register)
        for head, text in heads_and_texts
        for register, title in [head.split(" | ")]
    )


def _by_register(file: str) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(text, register) for register, texts in _json(file).items() for text in texts
    )


def _read(file: str) -> str:
    return (resources.files(__package__) / file).read_text(encoding="utf-8")


def _json(file: str) -> Any:
    return json.loads(_read(file))
