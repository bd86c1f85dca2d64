"""One request: its sentence, the readings of the word along it, and their source in the text."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from ...intervention.generation.generate import generate
from ...lens.distributions import log_probs_of
from ...lens.logit_lens import logit_lens
from ...model.chat import chat_tokens
from ...model.hooks import hooked
from ...model.points import FINAL
from ...model.precision import as_double
from ...model.readout import readout
from ...model.residuals import residuals
from ...model.tokens import TokenBatch
from ..design.sequences import continuation, token_list
from ..engine.work_units import unit_kind

ASKED, OTHER, PLAIN = "with the word", "with another word", "without a word"
OWN, FIXED = "the model's own sentence", "a fixed sentence"
WORD, REST, SENTENCE = "the word in the request", "the rest of the prompt", "the sentence"


@unit_kind("a last word along a sentence")
def measure_request(
    bridge: TransformerBridge,
    item: dict[str, str],
    new_tokens: int,
    every: int,
    parts: int,
) -> pd.DataFrame:
    """Rows for the sentences, requests, points and parts of one item.

    `log_prob` and `log_rank` (of one plus the rank) are those of the word's first token, averaged
    over the positions of the part that predict a token of the sentence. `ends` says whether the
    sentence that the model wrote on this request ends in the word. The model's own sentence is cut
    off before the word.
    """
    prompts = _prompts(bridge, item)
    word = _first_token(bridge, item)
    written = generate(bridge, list(prompts.values()), max_new_tokens=new_tokens)
    assert written.texts is not None
    said = dict(zip(prompts, written.texts, strict=True))
    own = written.tokens[0, : int(written.lengths[0]) - int(written.finished[0])].tolist()
    sentences = {
        OWN: _before_word(bridge, own, item["word"]),
        FIXED: token_list(bridge, item["sentence"]),
    }
    rows: list[dict[str, Any]] = []
    for name, sentence in sentences.items():
        if len(sentence) < parts:
            continue
        # The beginnings of the parts; the sentence's tokens are predicted one position before them.
        part = np.arange(len(sentence)) * parts // len(sentence)
        for request, prompt in prompts.items():
            first = len(prompt) - 1
            read = logit_lens(
                bridge,
                [*prompt, *sentence[:-1]],
                every=every,
                positions=slice(first, None),
                watch=word,
            )
            assert read.watched_log_prob is not None
            assert read.watched_rank is not None
            log_prob = read.watched_log_prob[:, 0, :, 0].double().numpy()
            log_rank = np.log1p(read.watched_rank[:, 0, :, 0].double().numpy())
            rows += [
                {
                    "word": item["word"],
                    "topic": item["topic"],
                    "phrasing": item["phrasing"],
                    "sentence": name,
                    "request": request,
                    "point": point,
                    "label": label,
                    "part": number,
                    "log_prob": float(log_prob[point, part == number].mean()),
                    "log_rank": float(log_rank[point, part == number].mean()),
                    "ends": ends_in(said[request], item["word"]),
                    "said": said[request],
                }
                for point, label in enumerate(read.points)
                for number in range(parts)
            ]
    return pd.DataFrame(rows)


@unit_kind("where a last word comes from")
def measure_sources(
    bridge: TransformerBridge, item: dict[str, str], layers: Sequence[int]
) -> pd.DataFrame:
    """The word's loss of log-probability if a part of the text is taken from another request.

    There is a row for each layer and part of the text, whose residuals, as they enter the layer,
    are replaced by those of the request with the other word. `lost` is the fall of the word's
    log-probability at the output, averaged over the fixed sentence, and `whole` is the fall if all
    of the text comes from the other request. There are no rows if the two words differ in their
    numbers of tokens.
    """
    prompts = _prompts(bridge, item)
    sentence = token_list(bridge, item["sentence"])[:-1]
    ids, other = ([*prompts[request], *sentence] for request in (ASKED, OTHER))
    differ = [place for place, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b]
    if len(ids) != len(other):
        columns = ["word", "topic", "phrasing", "layer", "where", "lost", "whole"]
        return pd.DataFrame(columns=columns)
    start, end = differ[0], differ[-1] + 1
    begin = len(prompts[ASKED])
    places = {WORD: slice(start, end), REST: slice(end, begin), SENTENCE: slice(begin, None)}
    word = _first_token(bridge, item)
    labels = [f"{layer}_pre" for layer in layers]
    *instead, last = residuals(bridge, _batch(bridge, other), [*labels, FINAL])

    read = readout(bridge)

    def heard(final: Float[Tensor, "1 pos d_model"]) -> float:
        logits = read(final[0, begin - 1 :])
        watched = torch.full((len(logits),), word, device=logits.device)
        return float(as_double(log_probs_of(logits, watched)).mean())

    (clean,) = residuals(bridge, _batch(bridge, ids), [FINAL])
    asked = heard(clean)
    whole = asked - heard(last)
    return pd.DataFrame(
        [
            {
                "word": item["word"],
                "topic": item["topic"],
                "phrasing": item["phrasing"],
                "layer": layer,
                "where": where,
                "lost": asked - heard(_exchanged(bridge, ids, layer, resid, place)),
                "whole": whole,
            }
            for layer, resid in zip(layers, instead, strict=True)
            for where, place in places.items()
        ]
    )


def _exchanged(
    bridge: TransformerBridge,
    ids: list[int],
    layer: int,
    instead: Float[Tensor, "1 pos d_model"],
    place: slice,
) -> Float[Tensor, "1 pos d_model"]:
    """The output of a text if, at some places, other residuals enter a layer."""

    def exchange(tensor: Float[Tensor, "1 pos d_model"], hook: HookPoint) -> Tensor:
        tensor = tensor.clone()
        tensor[:, place] = instead[:, place]
        return tensor

    with hooked(bridge, [(f"blocks.{layer}.hook_resid_pre", exchange)]):
        (final,) = residuals(bridge, _batch(bridge, ids), [FINAL])
    return final


def ends_in(text: str, word: str) -> bool:
    """Whether the last word of a text is this one, ignoring punctuation after it."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return bool(words) and words[-1].lower() == word.lower()


def _prompts(bridge: TransformerBridge, item: dict[str, str]) -> dict[str, list[int]]:
    said = {ASKED: item["asked"], OTHER: item["asked_other"], PLAIN: item["plain"]}
    return {
        request: chat_tokens(bridge, [{"role": "user", "content": text}])
        for request, text in said.items()
    }


def _first_token(bridge: TransformerBridge, item: dict[str, str]) -> int:
    """The first token of the word, where the fixed sentence goes on with it."""
    return continuation(bridge, item["sentence"], f" {item['word']}")[0]


def _before_word(bridge: TransformerBridge, ids: list[int], word: str) -> list[int]:
    """The tokens of a sentence before the first occurrence of the word, or all without one.

    Inside another word it is none: "at" does not stand in "state". A word that begins with it
    counts, such as its plural.
    """
    found = re.search(rf"\b{re.escape(word)}", bridge.tokenizer.decode(ids), re.IGNORECASE)
    if found is None:
        return ids
    at = found.start()
    n = max(n for n in range(len(ids)) if len(bridge.tokenizer.decode(ids[:n])) <= at)
    return ids[:n]


def _batch(bridge: TransformerBridge, ids: list[int]) -> TokenBatch:
    tokens: Int[Tensor, "1 pos"] = torch.tensor([ids], device=bridge.cfg.device)
    return TokenBatch.unpadded(tokens)
