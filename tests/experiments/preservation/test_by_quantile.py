"""Tokens sorted into equal parts by rarity and by surprise."""

from dataclasses import replace

import numpy as np

from lens_interventions.experiments.preservation.analysis import by_quantile
from lens_interventions.experiments.preservation.figures import rank_by
from lens_interventions.experiments.preservation.token_rows import (
    NET,
    RARITY,
    RAW,
    SURPRISE,
    TokenRows,
)
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


def test_parts_that_end_at_the_same_tenth_of_a_nat_are_curves_of_their_own() -> None:
    values = 5 + np.arange(12) / 100
    tokens = TokenRows(
        document=np.arange(12) % 3,
        token=np.arange(12),
        rarity=values,
        surprise=values,
        labels=("0_pre", "1_pre"),
        kept={kind: np.stack([values, values]) for kind in (RAW, NET)},
    )
    figure = rank_by(by_quantile(tokens, replace(SMALL, quantiles=4)), RARITY)
    lines = [trace for trace in figure.data if trace.name and trace.visible is not False]
    assert len({trace.name for trace in lines}) == 4
    assert {len(trace.x) for trace in lines} == {2}
