"""Rows of single tokens and templates that a finished run keeps for its readers."""

import numpy as np
import pandas as pd

from .token_rows import NET, RARITY, RAW, SURPRISE, TokenRows, later


def kept_tokens(tokens: TokenRows) -> pd.DataFrame:
    """A row per token: document, id, rarity and surprise in nats, and how well it is preserved.

    `rank` and `log_prob` are `TokenRows.kept` of the kinds raw and net, averaged over the points in
    the upper half, as the verdicts read them.
    """
    upper = later(tokens.labels)
    return pd.DataFrame(
        {
            "document": tokens.document,
            "token": tokens.token,
            RARITY: tokens.rarity,
            SURPRISE: tokens.surprise,
            "rank": tokens.kept[RAW][upper].mean(axis=0),
            "log_prob": tokens.kept[NET][upper].mean(axis=0),
        }
    )


def kept_templates(items: pd.DataFrame) -> pd.DataFrame:
    """A row per template: its word and sentence, how well the word is kept, and how well copied.

    `rank` is -log(1 + rank) where the word stands first, averaged over its tokens and the points in
    the upper half, and `copy_log_prob` is in nats, of the whole word where it is due again.
    """
    labels = tuple(items["label"].drop_duplicates())
    chosen = items[items["label"].isin(np.array(labels)[later(labels)])]
    rank = -chosen.groupby("item")["log_rank"].mean()
    named = ["item", "group", "said", "frame", "distance", "copy_log_prob"]
    one = items.loc[items["label"] == labels[0], named]
    return one.assign(rank=one["item"].map(rank)).reset_index(drop=True)
