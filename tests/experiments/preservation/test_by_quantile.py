"""Tokens sorted into equal parts by rarity and by surprise."""

from dataclasses import replace

import numpy as np

from lens_interventions.experiments.preservation.analysis import by_quantile
from lens_interventions.experiments.preservation.token_rows import NET, RARITY, SURPRISE, TokenRows
from tests.support.small_preservation import SMALL


def test_every_part_has_as_many_tokens_and_their_mean() -> None:
    rarity = np.arange(12.0)
    tokens = TokenRows(
        document=np.arange(12) % 3,
        token=np.arange(12),
        rarity=rarity,
        surprise=-rarity,
        labels=("0_pre",),
        kept={NET: 10 * rarity[None]},
    )
    table = by_quantile(tokens, replace(SMALL, quantiles=4)).set_index(["sorted_by", "quantile"])
    assert table.loc[RARITY, "estimate"].tolist() == [10, 40, 70, 100]
    assert table.loc[RARITY, "from_nats"].tolist() == [0, 3, 6, 9]
    assert table.loc[RARITY, "to_nats"].tolist() == [2, 5, 8, 11]
    # The least surprising are the rarest here.
    assert table.loc[SURPRISE, "estimate"].tolist() == [100, 70, 40, 10]
