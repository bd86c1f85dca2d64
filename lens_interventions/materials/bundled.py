"""Materials written for this library, kept beside this module as JSON and plain text."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from .document import Document, Prompt
from .openings import opening_passages, opening_prompts

_PARTS: dict[Literal["near", "far"], tuple[str, ...]] = {
    "near": ("opening", "cue"),
    "far": ("opening", "filler", "cue"),
}


@dataclass(frozen=True)
class Template:
    """A text that stops where a sensible reader continues with a word from before.

    Attributes:
        frame: name of the sentences around the word.
        group: the kind of word that fits the frame; frames and words are crossed within a group.
        word: the word.
        frequency: "common" or "rare" in English; the tokenizer decides how many tokens it has.
        distance: "near" if the copy is in the sentence after the word; "far" if one or two
            sentences about something else lie between.
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
        """The continuation of `prefix`: a space and the word."""
        return f" {self.word}"


def templates() -> tuple[Template, ...]:
    """Sentences that end where a word from before is due, like the post's about plasma.

    There are 384: 6 groups of 4 frames and 8 words, 4 common and 4 rare, with every word in every
    frame of its group, near and far. So rarity is not confounded with the content of the sentence.
    The rare words were chosen so that common tokenizers keep some whole and split others.

    Items share frames and words, so they are not independent: resample frames or words, or average
    over one of them first.
    """
    data = read_json("templates.json")
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


def prompts(at_least: int = 0) -> tuple[Prompt, ...]:
    """72 open-ended beginnings of 7 to 17 words, 4 in each of 18 registers.

    If you ask for more, openings of documents are added, up to `at_least`: 16 to 20 words of the
    Python reference, with register "reference", or of docstrings of installed packages, with
    register "docstring". No two of their documents share a passage. They depend on the versions of
    Python and of the packages in `docstring_versions()`.

    Raises `ValueError` if there are fewer on this machine.
    """
    return _filled(_by_register("prompts.json"), opening_prompts, at_least, "prompts")


def passages(at_least: int = 0) -> tuple[Prompt, ...]:
    """16 passages of one or two sentences that can be repeated, in 12 registers.

    If you ask for more, first sentences of documents are added, up to `at_least`, as for `prompts`
    but from other documents.

    Raises `ValueError` if there are fewer on this machine.
    """
    return _filled(_by_register("passages.json"), opening_passages, at_least, "passages")


def prose() -> tuple[Document, ...]:
    """40 short texts of about 100 words in varied registers, for the loss on held-out English."""
    documents = _read("prose.txt").strip().split("\n\n")
    heads_and_texts = [document.split("\n", 1) for document in documents]
    return tuple(
        Document(title, text, register)
        for head, text in heads_and_texts
        for register, title in [head.split(" | ")]
    )


def _filled(
    written: tuple[Prompt, ...],
    openings: Callable[[], Sequence[Prompt]],
    at_least: int,
    what: str,
) -> tuple[Prompt, ...]:
    missing = at_least - len(written)
    if missing <= 0:
        return written
    others = openings()
    if missing > len(others):
        raise ValueError(
            f"there are {len(written) + len(others)} {what} on this machine, but {at_least} were "
            "asked for: ask for fewer"
        )
    return (*written, *others[:missing])


def _by_register(file: str) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(text, register) for register, texts in read_json(file).items() for text in texts
    )


def _read(file: str) -> str:
    return (resources.files(__package__) / file).read_text(encoding="utf-8")


def read_json(file: str) -> Any:
    """The values of a JSON file beside this module."""
    return json.loads(_read(file))
