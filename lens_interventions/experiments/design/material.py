"""Material for copying: repeated random tokens, words that are due again, natural text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...materials import Template
from ...materials.corpora import read_documents
from ...materials.shingles import groups
from .contrasts import Resampling
from .documents import cluster_of, without_copies
from .sequences import REPORT, SELECTION, TokenSequence, beginning, continuation, token_list
from .setting_checks import require_at_least, require_different, require_room

# The tags that `copy_rows` gives.
_KINDS_OF_TOKENS = re.compile(r"copyable|other|bin-\d+|(surprise|repeat)(-.*)?")


@dataclass(frozen=True, kw_only=True)
class CopyingMaterial:
    """The amount of material for copying, its divisions, and the smallest effects that count.

    Pairs of numbers are (selection, report): one half of the material chooses, and the other half
    gives the reported numbers.

    Attributes:
        induction_sequences: how many sequences of random tokens, which are repeated once.
        induction_length: how many tokens are repeated.
        template_words: how many words of each frequency are taken from each group, up to 4.
        texts: the sources of natural text: "python_reference", "prose", "docstrings",
            "python_code", "standard_library", a path for `materials.read_texts`, or
            "dataset:NAME:COLUMN" or "dataset:NAME:COLUMN:SPLIT", of which the first 2,000 documents
            are read.
        documents: the most documents of each text that are read.
        document_tokens: how many tokens of each document are read, from its beginning.
        surprisal_edges: the edges of the bins of surprisal, in nats.
        surprising: the nats from which a token counts as surprising; one of the edges.
        recent: for how many tokens a surprise counts as recent.
        batch: sequences in a unit of work.
        smallest_copy: the smallest difference worth talking about in the loss on a copy or the
            log-prob of a word, in nats; 0.05 is a twentieth of the probability.
        smallest_text: the smallest difference worth talking about in the loss on natural text,
            which is a mean over many tokens.
        resampling: how intervals and p-values are resampled.
        seed: the seed of the random tokens and the halves.

    Raises `ValueError` for sizes below 1, texts too short for the measurements, no text at all, two
    texts of one `text_tag`, or a `surprising` that is not an edge.
    """

    induction_sequences: tuple[int, int] = (16, 96)
    induction_length: int = 40
    template_words: tuple[int, int] = (1, 4)
    texts: tuple[str, ...] = ("python_reference", "prose")
    documents: tuple[int, int] = (12, 40)
    document_tokens: int = 192
    surprisal_edges: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0, 8.0)
    surprising: float = 6.0
    recent: int = 8
    batch: int = 8
    smallest_copy: float = 0.05
    smallest_text: float = 0.02
    resampling: Resampling = field(default_factory=Resampling)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("give at least one text")
        sizes = {
            name: getattr(self, name)
            for name in ("induction_sequences", "template_words", "documents")
        }
        for name, size in sizes.items():
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"{name} must be two numbers from 1 up, got {size}")
        kinds = [text for text in self.texts if _KINDS_OF_TOKENS.fullmatch(text_tag(text))]
        if kinds:
            raise ValueError(
                f"the text {kinds[0]!r} has the name of a kind of token, and they would be counted "
                f"together: write ./{kinds[0]}, or rename the file"
            )
        if self.surprising not in self.surprisal_edges:
            raise ValueError(
                f"surprising must be one of the edges {self.surprisal_edges}, so that bins lie on "
                f"one side of it; got {self.surprising}"
            )
        require_different(self, "texts", "surprisal_edges")
        tags = [text_tag(text) for text in self.texts]
        alike = [text for text, tag in zip(self.texts, tags, strict=True) if tags.count(tag) > 1]
        if alike:
            raise ValueError(
                f"the texts {alike} would be counted together, as their names differ in nothing "
                "but white space and underscores: rename a file"
            )
        if list(self.surprisal_edges) != sorted(self.surprisal_edges):
            raise ValueError(f"surprisal_edges must be increasing, got {self.surprisal_edges}")
        require_at_least(self, 2, "induction_length")
        require_at_least(self, 3, "document_tokens")
        require_at_least(self, 1, "recent", "batch")

    @property
    def divisions(self) -> dict[str, Any]:
        """The divisions of text, as parameters of units that measure it."""
        return {
            "edges": list(self.surprisal_edges),
            "surprising": self.surprising,
            "recent": self.recent,
        }


def induction_sequences(
    bridge: TransformerBridge, material: CopyingMaterial
) -> list[TokenSequence]:
    """`[BOS] + A + A`, where A are distinct tokens drawn from all tokens that are not special.

    The tokenizer defines which tokens are special. Reserved tokens of a vocabulary, such as Gemma's
    `<unused0>`, are drawn like any other. Ids beyond the tokenizer's, which fill up a matrix, are
    not drawn.

    Raises `ValueError` if the model cannot read so many tokens at once.
    """
    start = beginning(bridge)
    require_room(bridge, induction_length=len(start) + 2 * material.induction_length)
    special, known = set[int](), int(bridge.cfg.d_vocab)
    if bridge.tokenizer is not None:
        special = set(bridge.tokenizer.all_special_ids)
        known = min(known, len(bridge.tokenizer))
    ordinary = np.array([i for i in range(known) if i not in special])
    rng = np.random.default_rng([material.seed, 1])
    sequences = []
    selecting, reporting = material.induction_sequences
    for number in range(selecting + reporting):
        said = rng.choice(ordinary, material.induction_length, replace=False).tolist()
        half = SELECTION if number < selecting else REPORT
        tokens = (*start, *said, *said)
        sequences.append(TokenSequence(number, half, str(number), "", tokens, len(said)))
    return sequences


def template_sequences(bridge: TransformerBridge, material: CopyingMaterial) -> list[TokenSequence]:
    """Each template followed by its word; the tags are rarity, distance and number of pieces.

    Each half gets two frames of every group. Words are the clusters, and frames are crossed with
    them: a word is in both halves, but in different sentences.
    """
    items = materials.templates()
    words = {
        half: _some_words(items, n)
        for half, n in zip((SELECTION, REPORT), material.template_words, strict=True)
    }
    frames = list(dict.fromkeys(item.frame for item in items))
    sequences = []
    for number, item in enumerate(items):
        half = SELECTION if frames.index(item.frame) % 2 == 0 else REPORT
        if item.word not in words[half]:
            continue
        word = continuation(bridge, item.prefix, item.continuation)
        pieces = "single" if len(word) == 1 else "several"
        tokens = (*beginning(bridge), *token_list(bridge, item.prefix), *word)
        tags = f"{item.frequency} {item.distance} {pieces}"
        sequences.append(
            TokenSequence(number, half, item.word, tags, tokens, len(word), item.frame)
        )
    return sequences


def text_sequences(bridge: TransformerBridge, material: CopyingMaterial) -> list[TokenSequence]:
    """The beginnings of documents, alternating between the halves; the tag names the text.

    Documents that share a passage are one cluster, named after the first of them, and in the same
    half, even if they belong to different texts. If a half has enough of a text, the rest goes to
    the other half.

    Raises `ValueError` if the model cannot read so many tokens at once.
    """
    rng = np.random.default_rng([material.seed, 2])
    texts = without_copies({source: read_documents(source) for source in material.texts})
    every = [(source, document) for source, of in texts.items() for document in of]
    numbers = iter(groups([document for _, document in every]))
    half_of_group: dict[int, str] = {}
    sequences: list[TokenSequence] = []
    for source, documents in texts.items():
        group_of = [next(numbers) for _ in documents]
        wanted = dict(zip((SELECTION, REPORT), material.documents, strict=True))
        taken = dict.fromkeys(wanted, 0)
        for index in rng.permutation(len(documents)):
            open_halves = [half for half in wanted if taken[half] < wanted[half]]
            if not open_halves:
                break
            next_half = min(open_halves, key=taken.__getitem__)
            half = half_of_group.setdefault(group_of[index], next_half)
            body = token_list(bridge, documents[index].text)[: material.document_tokens - 1]
            tokens = (*beginning(bridge), *body)
            if half in open_halves and len(tokens) > 2:
                taken[half] += 1
                cluster, tag = cluster_of(*every[group_of[index]]), text_tag(source)
                sequences.append(TokenSequence(len(sequences), half, cluster, tag, tokens, 0))
    require_room(bridge, document_tokens=max((len(text.tokens) for text in sequences), default=0))
    return sequences


def text_tag(source: str) -> str:
    """The tag of a source of text: its name without white space, which separates tags."""
    return "_".join(source.split())


def _some_words(items: Sequence[Template], n: int) -> set[str]:
    """`n` words of each frequency in each group, spread over the list from short to long words."""
    words: dict[tuple[str, str], list[str]] = {}
    for item in items:
        known = words.setdefault((item.group, item.frequency), [])
        if item.word not in known:
            known.append(item.word)
    return {word for known in words.values() for word in known[:: max(len(known) // n, 1)][:n]}
