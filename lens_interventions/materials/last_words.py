"""Requests for a sentence that ends in a given word, and the same without the word."""

from dataclasses import dataclass

from .bundled import read_json


@dataclass(frozen=True)
class LastWord:
    """A request for a sentence.

    Attributes:
        topic: what the sentence should be about.
        word: the word with which it should end.
        other: another word, for comparison.
        phrasing: the wording of the request, with "{topic}" and "{word}" where these stand.
        asked: the request, with the word.
        asked_other: the same with the other word.
        plain: the same without a word.
        sentence: a sentence on the topic that contains none of the words.
    """

    topic: str
    word: str
    other: str
    phrasing: str
    asked: str
    asked_other: str
    plain: str
    sentence: str


def last_words() -> tuple[LastWord, ...]:
    """60 requests: each of 10 common words with each of 6 topics, in 3 phrasings.

    Items share words, topics and phrasings, so they are not independent: resample all three.
    """
    data = read_json("last_words.json")
    frames, words = data["frames"], data["words"]
    return tuple(
        LastWord(
            topic["name"],
            word,
            other := words[(place + 1) % len(words)],
            frame["asked"],
            frame["asked"].format(topic=topic["name"], word=word),
            frame["asked"].format(topic=topic["name"], word=other),
            frame["plain"].format(topic=topic["name"]),
            topic["sentence"],
        )
        for place, word in enumerate(words)
        for number, topic in enumerate(data["topics"])
        for frame in (frames[(place + number) % len(frames)],)
    )
