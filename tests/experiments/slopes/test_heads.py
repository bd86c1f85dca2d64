"""What kind of head a head is, by its scores."""

import itertools

import pandas as pd

from lens_interventions.experiments.slopes.heads import _name_places, head_table, kind_table
from tests.support.small_slopes import SMALL

# Attention by prefix matching and to the previous token, and what the head does to the logit of the
# token attended to, in standard deviations.
SCORES = {
    0: (0.5, 0.0, 2.0),
    1: (0.5, 0.0, -2.0),
    2: (0.0, 0.0, -1.5),
    3: (0.1, 0.6, 0.0),
    4: (0.1, 0.1, 0.5),
}
KINDS = {
    0: "induction",
    1: "copy suppression",
    2: "copy suppression",
    3: "previous token",
    4: "other",
}


def rows_of_heads() -> pd.DataFrame:
    """Slopes of three texts through the keys and values of five heads."""
    found = []
    for text, head, part, source in itertools.product(
        range(3), SCORES, ("keys", "values"), SMALL.head_sources
    ):
        matching, previous, copying = SCORES[head]
        found.append(
            {
                "material": "copies",
                "cluster": f"c{text}",
                "layer": 1,
                "head": head,
                "part": part,
                "source": source,
                "matching": matching,
                "previous": previous,
                "copying": copying,
                "total": (source == "true") * -10.0 * (head + 1),
                "count": 10,
            }
        )
    return pd.DataFrame(found)


def test_kinds_are_told_by_the_scores() -> None:
    rows = rows_of_heads()
    heads = head_table(rows, SMALL)
    assert heads.groupby("head")["kind"].unique().map(list).to_dict() == {
        head: [kind] for head, kind in KINDS.items()
    }
    kinds = kind_table(rows, heads, SMALL).query("minus == 'current'").set_index(["kind", "part"])
    # The slopes of a kind are those of its heads together.
    assert kinds["estimate"].xs("keys", level="part").round(9).to_dict() == {
        "induction": -1.0,
        "copy suppression": -5.0,
        "previous token": -4.0,
        "other": -5.0,
    }
    assert kinds["heads"].xs("keys", level="part").to_dict()["copy suppression"] == 2


def test_names_of_heads_that_lie_close_stand_at_different_heights():
    table = pd.DataFrame(
        {"estimate": [0.50, 0.51, 0.52, -0.4, 0.51], "matching": [0.0, 0.01, 0.0, 0.0, 0.9]}
    )
    assert list(_name_places(table).values()) == [
        "bottom right",
        "middle right",
        "top right",
        "middle right",
        "middle right",
    ]
