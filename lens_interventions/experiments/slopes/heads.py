"""Which heads would read a weak write of the true token, and what kind of heads they are."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.colours import LINES
from ...drawing.labels import capital
from ...drawing.theme import template
from ...drawing.titles import heading
from ...intervention.mechanism.head_result import PARTS
from ...intervention.mechanism.head_slopes import head_slopes
from ..design.findings import Asked
from ..engine.work_units import unit_kind
from .bounds import band_table, lowest, sums_by, worst
from .findings import asked, said, words
from .settings import SlopesSettings
from .unit_texts import Sequences, longest, named, patch_of, tokens_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SCORES = ["matching", "previous", "copying"]
_HEAD = ["layer", "head", "part"]

# Attention of more than this share makes a head one of induction, or of the previous token; and so
# many standard deviations below other tokens make it one of copy suppression.
_ATTENDS, _SUPPRESSES = 0.3, -1.0

# So many heads of a panel have their layer and number beside them.
_NAMED = 3

KINDS = ("induction", "copy suppression", "previous token", "other")


@unit_kind("head slopes")
def measure_heads(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    sources: Sequence[str],
    mode: str,
    embedding: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text, head, part and source: the slope of the sum of its losses.

    Each row repeats the head's scores, which do not depend on the text.
    """
    layers = range(int(bridge.cfg.n_layers))
    found = head_slopes(
        bridge,
        tokens_of(bridge, sequences),
        patch_of(sequences, layers, sources[0], mode, 1.0, embedding, seed),
        sources=sources,
        scopes=[scope],
        max_length=longest(sequences),
        progress=False,
    )
    scores = found.scores()
    return pd.DataFrame(
        [
            {
                **named(material, sequence),
                "layer": layer,
                "head": head,
                "part": part,
                "source": source,
                **{name: scores[name][place, head] for name in _SCORES},
                "total": found.totals[text, 0, s, place, p, head],
                "count": found.counts[text, 0],
            }
            for text, sequence in enumerate(sequences)
            for s, source in enumerate(found.sources)
            for place, layer in enumerate(found.layers)
            for p, part in enumerate(PARTS)
            for head in range(found.totals.shape[-1])
        ]
    )


def head_table(rows: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """The news of each head: the slope of the true source minus that of each control.

    Columns: material, layer, head, part, minus, matching, previous, copying, kind, estimate, low,
    high, p_value, n. Ends and p-values hold for all rows of a material at once.
    """
    found = []
    scores = rows.groupby(_HEAD)[_SCORES].first()
    for material, here in rows.groupby("material", sort=False):
        totals, counts = sums_by(here, [*_HEAD, "source"])
        cells = [
            (*cell, control)
            for *cell, source in totals
            if source == "true"
            for control in settings.head_sources[1:]
        ]
        values = [totals[*cell, "true"] - totals[*cell, control] for *cell, control in cells]
        table = pd.DataFrame(cells, columns=[*_HEAD, "minus"]).join(scores, on=_HEAD)
        table = table.assign(material=material, kind=_kinds(table))
        found.append(band_table(table, values, counts, settings.resampling))
    return pd.concat(found, ignore_index=True)


def kind_table(rows: pd.DataFrame, heads: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """The same, summed over all heads of a kind: the slope if only these heads read the write.

    Columns: material, kind, heads (how many), part, minus, estimate, low, high, p_value, n.
    """
    rows = with_kinds(rows, heads)
    of_one_part = heads[heads["part"] == PARTS[0]].drop_duplicates(_HEAD)
    n_heads = of_one_part["kind"].value_counts()
    found = []
    for material, here in rows.groupby("material", sort=False):
        _, counts = sums_by(here, [*_HEAD, "source"])
        sums, _ = sums_by(here, ["kind", "part", "source"])
        cells, values = [], []
        for kind in (name for name in KINDS if name in n_heads.index):
            for part in PARTS:
                for control in settings.head_sources[1:]:
                    cells.append((material, kind, int(n_heads[kind]), part, control))
                    values.append(sums[kind, part, "true"] - sums[kind, part, control])
        table = pd.DataFrame(cells, columns=["material", "kind", "heads", "part", "minus"])
        found.append(band_table(table, values, counts, settings.resampling))
    return pd.concat(found, ignore_index=True)


def with_kinds(rows: pd.DataFrame, heads: pd.DataFrame) -> pd.DataFrame:
    """Rows of heads with the `kind` that each head has in their `head_table`."""
    return rows.join(heads.drop_duplicates(_HEAD).set_index(_HEAD)["kind"], on=_HEAD)


def _kinds(table: pd.DataFrame) -> list[str]:
    suppresses = table["copying"] <= _SUPPRESSES
    return list(
        np.select(
            [
                (table["matching"] >= _ATTENDS) & ~suppresses,
                suppresses,
                table["previous"] >= _ATTENDS,
            ],
            list(KINDS[:-1]),
            KINDS[-1],
        )
    )


_METHOD = (
    "{what}, copyable predictions, {n} texts, all layers, mode {mode}. To first order, {weak:g} "
    "times the slope through the keys or the values of heads at written positions: the true source "
    "minus the control that does best ({controls}), for the kind and part where that is lowest. "
    "Through keys and values, minus the first control: {kinds}. Induction heads attend by prefix "
    "matching to at least {attends:g} (Olsson et al. 2022); copy suppression lowers the logit of "
    "the token attended to by {suppresses:g} standard deviations or more (McDougall et al. 2023). "
    "The intervals hold for all kinds at once, by the max-t bootstrap over texts."
)


def asked_of_heads(kinds: pd.DataFrame, settings: SlopesSettings) -> list[Asked]:
    """For each material, whether some kind of heads would read the news."""
    found = []
    for material, here in kinds.groupby("material", sort=False):
        leads = worst(here, ["kind", "part"])
        lead = lowest(leads, here, settings, settings.weak)
        first = here[here["minus"] == settings.head_sources[1]]
        told = [
            f"{kind} ({part['heads'].iloc[0]} heads) "
            + " and ".join(said(row, settings.weak) for row in part.to_dict("records"))
            for kind, part in first.groupby("kind", sort=False)
        ]
        found.append(
            asked(
                "To first order, does a weak write of the true token do more than one without news "
                f"through any kind of head, on {words(str(material))}?",
                lead,
                _METHOD.format(
                    what=capital(words(str(material))),
                    n=lead.interval.n,
                    mode=settings.modes[0],
                    weak=settings.weak,
                    controls=" or ".join(settings.head_sources[1:]),
                    kinds="; ".join(told),
                    attends=_ATTENDS,
                    suppresses=-_SUPPRESSES,
                ),
                "heads",
                str(material),
                settings,
            )
        )
    return found


def draw_heads(table: pd.DataFrame) -> "go.Figure":
    """Each head's news by its prefix matching, a panel for material and part."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    control = table["minus"].iloc[0]
    shown = table[table["minus"] == control]
    materials = list(dict.fromkeys(shown["material"]))
    figure = make_subplots(
        rows=len(materials),
        cols=len(PARTS),
        shared_xaxes=True,
        subplot_titles=[
            f"{str(material).replace('_', ' ')}, through {part}"
            for material in materials
            for part in PARTS
        ],
        vertical_spacing=0.12,
    )
    for number, kind in enumerate(KINDS):
        for place, (material, part) in enumerate(
            (material, part) for material in materials for part in PARTS
        ):
            panel = shown[(shown["material"] == material) & (shown["part"] == part)]
            told = panel["estimate"].abs().nlargest(_NAMED).index
            places = _name_places(panel.loc[told])
            of = panel[panel["kind"] == kind]
            figure.add_trace(
                go.Scatter(
                    x=of["matching"],
                    y=of["estimate"],
                    mode="markers+text",
                    cliponaxis=False,  # names at the edge
                    text=[
                        f"L{row.layer}H{row.head}" if row.Index in told else ""
                        for row in of.itertuples()
                    ],
                    textposition=[places.get(index, "middle right") for index in of.index],
                    marker={
                        "size": 8 if kind != KINDS[-1] else 5,
                        "color": LINES[number] if kind != KINDS[-1] else "#9aa0a6",
                    },
                    name=kind,
                    legendgroup=kind,
                    showlegend=place == 0,
                    customdata=[
                        f"layer {row.layer}, head {row.head}<br>previous {row.previous:.2f}, "
                        f"copying {row.copying:+.1f}<br>[{row.low:.3g}, {row.high:.3g}]"
                        for row in of.itertuples()
                    ],
                    hovertemplate="%{customdata}<br>matching %{x:.2f}: %{y:+.3g}<extra></extra>",
                ),
                row=place // len(PARTS) + 1,
                col=place % len(PARTS) + 1,
            )
    # Room for the name of a head at the right end.
    figure.update_xaxes(range=[-0.05, 1.15])
    figure.update_xaxes(title={"text": "prefix matching"}, row=len(materials))
    figure.update_yaxes(title={"text": "nats per unit of strength"}, col=1)
    return figure.update_layout(
        title=heading(f"Slope through each head, true minus {control}. Below 0 it reads the news"),
        template=template("light"),
        height=150 + 280 * len(materials),
        width=860,
        legend={"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
        margin={"t": 90, "b": 110},
    )


def _name_places(told: pd.DataFrame) -> dict[Hashable, str]:
    """Where each name stands: names that would cover each other stand at different heights."""
    reach = float(told["estimate"].abs().max())
    places = {}
    for index, head in told.iterrows():
        level, beside = (abs(told[name] - head[name]) for name in ("estimate", "matching"))
        near = told["estimate"][(level < 0.12 * reach) & (beside < 0.2)]
        if len(near) > 1 and index == near.idxmin():
            places[index] = "bottom right"
        elif len(near) > 1 and index == near.idxmax():
            places[index] = "top right"
        else:
            places[index] = "middle right"
    return places
