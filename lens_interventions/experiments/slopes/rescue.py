"""Could help be seen? The true token, written early, while it is hidden in its own place.

This is a test of assay sensitivity. If a patch makes up for the hidden token, later tokens can read
it, and without hiding it is redundant. If it does not, they cannot read it there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ...drawing.colours import LINES
from ...drawing.error_bars import error_bars
from ...drawing.labels import capital
from ...drawing.theme import template
from ...drawing.titles import heading
from ...intervention.mechanism.hidden_continuations import Through
from ...intervention.mechanism.rescue import rescue
from ..design.findings import Asked
from ..design.rows_of_sums import rows_where
from ..engine.work_units import unit_kind
from .bounds import band_table, lowest, sums_by, worst
from .findings import asked, said, words
from .settings import SlopesSettings
from .unit_texts import Sequences, longest, named, patch_of, tokens_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PLACE = ["layer", "strength", "through", "condition"]


@unit_kind("rescue")
def measure_rescue(
    bridge: TransformerBridge,
    material: str,
    scope: str,
    sequences: Sequences,
    layers: Sequence[int],
    strength: float,
    sources: Sequence[str],
    through: Sequence[Through],
    mode: str,
    embedding: str,
    seed: int,
) -> pd.DataFrame:
    """A row for each text, layer and condition: the sum of its `count` losses.

    In the conditions "clean" and "hidden", nothing is written, and the strength is 0.
    """
    found = rescue(
        bridge,
        tokens_of(bridge, sequences),
        patch_of(sequences, layers[0], sources[0], mode, strength, embedding, seed),
        sources=sources,
        layers=layers,
        through=through,
        scopes=[scope],
        max_length=longest(sequences),
        progress=False,
    )
    rows = []
    for text, sequence in enumerate(sequences):
        for place, layer in enumerate(layers):
            bare = {"clean": found.clean[text, 0], "hidden": found.hidden[text, 0, place]}
            losses = {(0.0, "", condition): total for condition, total in bare.items()} | {
                (strength, way, source): found.patched[text, 0, place, w, s]
                for w, way in enumerate(through)
                for s, source in enumerate(sources)
            }
            rows += [
                {
                    **named(material, sequence),
                    "layer": layer,
                    **dict(zip(_PLACE[1:], condition, strict=True)),
                    "total": total,
                    "count": found.counts[text, 0],
                }
                for condition, total in losses.items()
            ]
    return pd.DataFrame(rows)


def rescue_table(rows: pd.DataFrame, settings: SlopesSettings) -> pd.DataFrame:
    """Each condition minus "hidden", and the true source minus controls.

    Columns: material, layer, strength, through, condition, minus, estimate, low, high, p_value, n.
    Ends and p-values hold for all rows of a material at once. In rows of "clean" minus
    "hidden", strength is 0 and `through` is empty.
    """
    found = []
    for material, here in rows.groupby("material", sort=False):
        once = here.drop_duplicates(["cluster", "sequence", *_PLACE])
        totals, counts = sums_by(once, _PLACE)
        places, values = [], []
        for (layer, strength, through, condition), total in totals.items():
            compared = {"hidden": totals[layer, 0.0, "", "hidden"]}
            if condition == "true":
                compared |= {
                    control: totals[layer, strength, through, control]
                    for control in settings.rescue_sources
                    if (layer, strength, through, control) in totals and control != "true"
                }
            if condition == "hidden":
                continue
            for minus, other in compared.items():
                places.append((material, layer, strength, through, condition, minus))
                values.append(total - other)
        table = pd.DataFrame(places, columns=["material", *_PLACE, "minus"])
        found.append(band_table(table, values, counts, settings.resampling))
    return pd.concat(found, ignore_index=True)


_METHOD = (
    "{what}, copyable predictions, {n} texts. From layer {layers} up, predictions do not see what "
    "followed earlier occurrences of their token: that costs {cost} nats. The true token, written "
    "one position early (mode {mode}, strengths {strengths}), minus the best of no patch and the "
    "controls {controls}, at the layer and strength where that is lowest: layer {layer}, strength "
    "{strength:g}. There it changes the loss by {alone}, minus no patch{ways}. The intervals hold "
    "for all cells of this material at once, by the max-t bootstrap over texts. Minus the control "
    "that does best alone, the lowest is {news}. If it helps, later tokens can read the write, and "
    "where nothing is hidden it is redundant; if not, nothing shows that they can: what they read "
    "of a token, they read where it stands."
)


def asked_of_rescue(table: pd.DataFrame, settings: SlopesSettings) -> list[Asked]:
    """For each material, whether the true token makes up for a hidden one."""
    return [
        _asked(str(material), here, settings)
        for material, here in table.groupby("material", sort=False)
    ]


def _asked(material: str, here: pd.DataFrame, settings: SlopesSettings) -> Asked:
    true = rows_where(here, condition="true", through="both")
    leads = worst(true, ["layer", "strength"])
    lowest_of: Any = leads["estimate"].idxmin()
    layer, strength = lowest_of
    of_cell = rows_where(here, layer=layer, strength=strength, condition="true")
    changes = of_cell.set_index(["through", "minus"]).to_dict("index")
    ways = [
        f"through {way} alone {said(changes[way, control])} minus {control}"
        for way in ("keys", "values")
        for control in settings.rescue_sources[1:2]
        if (way, control) in changes
    ]
    cost = here[here["condition"] == "clean"]
    lead = lowest(leads, here, settings)
    news = lowest(worst(true[true["minus"] != "hidden"], ["layer", "strength"]), here, settings)
    return asked(
        "Where later tokens cannot look at a token in place, does writing it one position early "
        f"make up for it, on {words(material)}?",
        lead,
        _METHOD.format(
            what=capital(words(material)),
            n=lead.interval.n,
            layers=" or ".join(str(at) for at in cost["layer"]),
            cost=" or ".join(f"{-each:.2g}" for each in cost["estimate"]),
            mode=settings.modes[0],
            strengths=", ".join(f"{each:g}" for each in settings.rescue_strengths),
            controls=" and ".join(settings.rescue_sources[1:]),
            layer=layer,
            strength=strength,
            alone=said(changes["both", "hidden"]),
            ways="".join(f"; {way}" for way in ways),
            news=said(news.columns()),
        ),
        "rescue",
        material,
        settings,
    )


def draw_rescue(table: pd.DataFrame) -> "go.Figure":
    """What each write changes where tokens are hidden, a panel for each material and layer."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = table[table["minus"] == "hidden"]
    bare = shown[shown["condition"] == "clean"].set_index(["layer", "material"])["estimate"]
    shown = shown[shown["condition"] != "clean"]
    shown = shown.assign(control=shown["condition"] != "true").sort_values(
        ["through", "control", "condition"], kind="stable"
    )
    materials, layers = (list(dict.fromkeys(shown[name])) for name in ("material", "layer"))
    figure = make_subplots(
        rows=len(layers),
        cols=len(materials),
        shared_yaxes=True,
        subplot_titles=[
            f"{str(material).replace('_', ' ')}, layer {layer}:<br>hiding costs "
            f"{-bare[layer, material]:.2g} nats"
            for layer in layers
            for material in materials
        ],
        horizontal_spacing=0.06,
        vertical_spacing=0.2,
    )
    strengths = sorted(set(shown["strength"]))
    for at, strength in enumerate(strengths):
        for place, (layer, material) in enumerate(
            (layer, material) for layer in layers for material in materials
        ):
            of = shown[
                (shown["layer"] == layer)
                & (shown["material"] == material)
                & (shown["strength"] == strength)
            ]
            figure.add_trace(
                go.Scatter(
                    x=of["estimate"],
                    y=[_label(*each) for each in zip(of["condition"], of["through"], strict=True)],
                    error_x=error_bars(of, thickness=1),
                    mode="markers",
                    marker={"size": 8, "color": LINES[at % len(LINES)]},
                    name=f"strength {strength:g}",
                    legendgroup=str(strength),
                    showlegend=place == 0,
                    hovertemplate="%{y}<br>%{x:+.3g} nats<extra></extra>",
                ),
                row=place // len(materials) + 1,
                col=place % len(materials) + 1,
            )
    figure.add_vline(x=0, line={"color": "grey", "width": 1})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title={"text": "change, nats per copyable token"}, row=len(layers))
    return figure.update_layout(
        title=heading("Does a write make up for a token that is hidden in place? Below 0 it does"),
        template=template("light"),
        height=150 + 260 * len(layers),
        width=300 + 340 * len(materials),
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        margin={"t": 120, "b": 110, "l": 150},
    )


def _label(condition: str, through: str) -> str:
    return condition if through == "both" else f"{condition}, {through} alone"
