"""Rows of single prompts, passages and documents that a finished run keeps for its readers."""

import pandas as pd

from ..design.samples import sample_totals
from ..design.totals import rows_with_tables
from ..engine.results import Tables
from .cost import LOSS
from .rounds import LOG_ODDS


def kept_rows(rows: Tables) -> pd.DataFrame:
    """A row per measure, arm and prompt, passage or document, with the name of their table.

    The category is the sampling rule for samples and losses, and the rounds said for passages. The
    texts themselves are left out, and so is the probability of another round, whose log-odds are
    there.
    """
    rounds, loss = rows["rounds"], rows["loss"]
    loss = loss.assign(category=loss["rule"].str.replace(" ", "_"))
    parts = {
        "search": sample_totals(rows["search"]),
        "samples": sample_totals(rows["samples"]),
        "rounds": rounds[rounds["measure"] == LOG_ODDS].assign(crossed=""),
        "loss": loss[loss["measure"] == LOSS].assign(crossed=""),
    }
    return rows_with_tables(parts)
