"""The training text of networks, and windows of other documents to measure them on."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ...._counter_random import random_bits
from ....materials.corpora import read_documents
from ....materials.document import Document
from ...engine.input_files import Version, file_version

END = "<|end|>"
"""The token between documents, number 0."""

# One document in this many is held out.
_HELD_OUT = 10
# Held-out windows that share a run of this many tokens with the training text are left out; of
# shorter windows, those that are in it whole.
_SHARED = 24
# The most windows of one document; otherwise a few long files would be most of the text.
_PER_DOCUMENT = 6


@dataclass(frozen=True)
class CorpusSettings:
    """The choice of text, and how it is cut.

    Attributes:
        sources: names of corpora in `materials`, data sets or the user's files.
        vocabulary: the number of tokens of the byte-level BPE tokenizer that is trained on the
            text.
        context: the number of tokens in a window.
        windows: the most held-out windows.
        seed: the seed of the choice of held-out documents.
    """

    sources: tuple[str, ...]
    vocabulary: int
    context: int
    windows: int
    seed: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens to train on, and held-out windows.

    Attributes:
        tokenizer: the tokenizer, trained on the training documents.
        training: `[token]`, the training documents one after another, `END` before each.
        windows: `[window, pos]`, of documents that are not trained on.
        clusters: `[window]`, the number of each window's document.
        left_out: how many windows were left out because they share a run with the training text.
    """

    tokenizer: PreTrainedTokenizerFast
    training: Int[Tensor, " token"]
    windows: Int[Tensor, "window pos"]
    clusters: Int[Tensor, " window"]
    left_out: int

    def digest(self) -> str:
        """A hash of all tokens."""
        hashed = hashlib.sha256(self.training.numpy().tobytes())
        hashed.update(self.windows.numpy().tobytes())
        return hashed.hexdigest()

    @functools.cached_property
    def surprisals(self) -> Float[Tensor, "window next"]:
        """How surprising each token of the windows is after the one before it, nats.

        It comes from counts of pairs in the training text, smoothed by counts of single tokens. It
        depends on no network, so it is the same for all arms.
        """
        size = len(self.tokenizer)
        tokens = self.training.numpy()
        single = np.bincount(tokens, minlength=size)
        pairs, counts = np.unique(tokens[:-1] * size + tokens[1:], return_counts=True)
        before, after = self.windows[:, :-1].numpy(), self.windows[:, 1:].numpy()
        wanted = before * size + after
        place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        seen = np.where(pairs[place] == wanted, counts[place], 0)
        alone = (single[after] + 1) / (single.sum() + size)
        share = (seen + _SMOOTHING * alone) / (single[before] + _SMOOTHING)
        return torch.from_numpy(-np.log(share))


_SMOOTHING = 10.0

LEAST_VOCABULARY = 257
"""The bytes, and the token that ends a document."""


def corpus_of(settings: CorpusSettings) -> Corpus:
    """Read the documents, train the tokenizer, hold every tenth document out.

    The last corpus is kept while its files are as they were.

    Raises `ValueError` if there is too little text for one window of either kind, and in the cases
    of `materials.corpora.read_documents`.
    """
    files = (source for source in settings.sources if Path(source).is_file())
    return _corpus(settings, tuple(map(file_version, files)))


@functools.lru_cache(maxsize=1)
def _corpus(settings: CorpusSettings, _files: tuple[Version, ...]) -> Corpus:
    read = (document for source in settings.sources for document in read_documents(source))
    documents = list({document.text: document for document in read}.values())
    order = random_bits(settings.seed, torch.arange(len(documents))).argsort(stable=True).tolist()
    n_held_out = max(len(documents) // _HELD_OUT, 1)
    kept = sorted(order[:n_held_out])
    trained = sorted(order[n_held_out:])
    tokenizer = trained_tokenizer([documents[i].text for i in trained], settings)
    stream = np.concatenate([[0]] + [_encoded(tokenizer, documents[i]) for i in trained])
    length = min(_SHARED, settings.context)
    known = np.sort(_run_hashes(stream, length))
    windows: list[np.ndarray] = []
    clusters: list[int] = []
    left_out = 0
    for number in kept:
        tokens = _encoded(tokenizer, documents[number])
        taken = 0
        for start in range(0, len(tokens) - settings.context + 1, settings.context):
            window = tokens[start : start + settings.context]
            if _any_in(_run_hashes(window, length), known):
                left_out += 1
            elif taken < _PER_DOCUMENT:
                windows.append(window)
                clusters.append(number)
                taken += 1
    if len(stream) <= settings.context or not windows:
        raise ValueError(
            f"{len(trained)} documents to train on and {len(kept)} to hold out leave "
            f"{len(stream)} tokens and {len(windows)} windows of {settings.context}: give more text"
        )
    # Spread over the documents, however many are read.
    chosen = random_bits(settings.seed + 1, torch.arange(len(windows))).argsort(stable=True)
    chosen = chosen[: settings.windows]
    return Corpus(
        tokenizer=wrapped(tokenizer, settings.context),
        training=torch.from_numpy(stream),
        windows=torch.from_numpy(np.stack(windows))[chosen],
        clusters=torch.tensor(clusters)[chosen],
        left_out=left_out,
    )


def corpus_parameter(settings: CorpusSettings) -> dict[str, Any]:
    """A corpus as a parameter of units: its settings, and a digest of its tokens."""
    return {**asdict(settings), "tokens": corpus_of(settings).digest()}


def corpus_of_parameter(parameter: Mapping[str, Any]) -> tuple[CorpusSettings, Corpus]:
    """The corpus that `corpus_parameter` names.

    Raises `ValueError` if its tokens differ from those where the run was started.
    """
    values = dict(parameter)
    tokens = values.pop("tokens")
    settings = CorpusSettings(**values | {"sources": tuple(values["sources"])})
    corpus = corpus_of(settings)
    if corpus.digest() != tokens:
        raise ValueError(
            "the texts here differ from those where the run was started: put the same files here, "
            "or start another run in a new directory"
        )
    return settings, corpus


def trained_tokenizer(texts: Sequence[str], settings: CorpusSettings) -> Tokenizer:
    """A byte-level BPE tokenizer for these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # A text begins as documents do in the stream.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, 0)]
    )
    return tokenizer


def wrapped(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer for transformers and TransformerLens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        # Without these two, TransformerLens would reload a tokenizer by name from the hub.
        name_or_path="scratch",
        add_bos_token=True,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
    )


def _encoded(tokenizer: Tokenizer, document: Document) -> np.ndarray:
    return np.array([*tokenizer.encode(document.text, add_special_tokens=False).ids, 0])


def _any_in(some: np.ndarray, known: np.ndarray) -> bool:
    place = np.searchsorted(known, some)
    inside = place < len(known)
    return bool((known[place[inside]] == some[inside]).any())


def _run_hashes(tokens: np.ndarray, length: int) -> np.ndarray:
    """A number for each run of `length` tokens, by a polynomial that wraps around."""
    if len(tokens) < length:
        return np.zeros(0, dtype=np.uint64)
    runs = np.lib.stride_tricks.sliding_window_view(tokens.astype(np.uint64), length)
    found = np.zeros(len(runs), dtype=np.uint64)
    for column in range(length):
        found = found * np.uint64(0x9E3779B97F4A7C15) + runs[:, column] + np.uint64(1)
    return found
