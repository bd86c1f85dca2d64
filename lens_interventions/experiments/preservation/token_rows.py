"""The tokens of a run as arrays: their rarity, and how well each point preserves them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from ...measures.behaviour import unigram_surprisal

RARITY, SURPRISE = "rarity", "surprise"
"""Unigram surprisal and surprisal in context."""

RAW, NET_RANK, NET = (
    "as ranked by the point",
    "rank, against the same token's elsewhere",
    "log-prob, against the same token's elsewhere",
)
"""Kinds of preservation: see `TokenRows.kept`."""

ACROSS, WITHIN = "all together", "same word and same sentence compared"
"""How templates are compared."""


@dataclass(frozen=True)
class TokenRows:
    """The tokens of a run, and how well each point preserves them.

    Attributes:
        document: `[token]`.
        token: `[token]`, ids.
        rarity: `[token]`, unigram surprisal by the other documents, nats.
        surprise: `[token]`, surprisal in context, nats.
        labels: of the points.
        kept: by kind, `[point, token]`; larger is better preserved. Raw: -log(1 + rank). Net: log(1
            + rank elsewhere) - log(1 + rank), or log-prob - log-prob elsewhere; NaN without another
            place. Ranks end at 0, so a common token, which the lens ranks high everywhere, has
            little room to show that it is preserved; log-probs have that room.
    """

    document: np.ndarray
    token: Int[np.ndarray, " token"]
    rarity: Float[np.ndarray, " token"]
    surprise: Float[np.ndarray, " token"]
    labels: tuple[str, ...]
    kept: dict[str, Float[np.ndarray, "point token"]]


def later(labels: tuple[str, ...]) -> Int[np.ndarray, " later"]:
    """Indices of the points in the upper half, without the last, which is the output.

    A model of one layer has two points, and the index is that of the first.
    """
    return np.arange(min(len(labels) // 2, len(labels) - 2), len(labels) - 1)


def token_rows(rows: pd.DataFrame, counts: pd.DataFrame) -> TokenRows:
    """The rows of all units as arrays, with each token's rarity.

    A token's rarity is counted in all documents except its own, because a token is not common if
    only one document repeats it.
    """
    first = rows[rows["point"] == 0]
    shape = (rows["point"].nunique(), len(first))
    # Units give point after point, each with the same tokens.
    ordered = rows.sort_values("point", kind="stable")
    rank = np.log1p(ordered["rank"].to_numpy(dtype=np.float64)).reshape(shape)
    elsewhere = np.log1p(ordered["elsewhere_rank"].to_numpy(dtype=np.float64)).reshape(shape)
    net = (ordered["log_prob"] - ordered["elsewhere_log_prob"]).to_numpy(dtype=np.float64)
    net = net.reshape(shape)
    return TokenRows(
        first["document"].to_numpy(),
        first["token"].to_numpy(),
        _rarity(first, counts),
        first["surprisal"].to_numpy(dtype=np.float64),
        tuple(ordered["label"].drop_duplicates()),
        {RAW: -rank, NET_RANK: elsewhere - rank, NET: net},
    )


def _rarity(tokens: pd.DataFrame, counts: pd.DataFrame) -> Float[np.ndarray, " token"]:
    d_vocab = int(counts["d_vocab"].iloc[0])
    everywhere = np.bincount(counts["token"], counts["count"], minlength=d_vocab)
    rarity = np.empty(len(tokens))
    ids, documents = tokens["token"].to_numpy(), tokens["document"].to_numpy()
    for document, own in counts.groupby("document"):
        here = documents == document
        if not here.any():
            continue  # a vocabulary of numbers for nothing
        rest = everywhere - np.bincount(own["token"], own["count"], minlength=d_vocab)
        rarity[here] = unigram_surprisal(torch.from_numpy(rest)).numpy()[ids[here]]
    return rarity
