"""Finding: the rarer an input token, the better it survives (a first look)."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from einops import rearrange, reduce
from jaxtyping import Bool, Float

from ...drawing.curves import Curve
from ...lens.figures.grid import cells
from ...lens.figures.over_layers import draw_over_layers
from ...lens.logit_lens import logit_lens
from ...materials import python_reference
from ...measures.intervals import Interval, mean_interval, mean_intervals
from ...model.points import point_name
from .example_texts import PLASMA, PLASMA_FIRST
from .measured_model import MeasuredModel, middle
from .ranks import count, log10_ranks, typical_rank
from .section import Condition, Figure, Section

if TYPE_CHECKING:
    import plotly.graph_objects as go

_EXCERPTS, _TOKENS = 8, 32
_WATCHED = 5  # rarest and commonest tokens of each excerpt
_WORDS = 50  # of a paragraph that can be an excerpt
_GROUPS = ("rare", "common")


@dataclass(frozen=True)
class _Survival:
    """Means of log10(1 + rank) in each excerpt, for its rare and its common tokens.

    Attributes:
        own: `[group, excerpt, point]`, for the input token at its own position.
        elsewhere: the same for that token at the excerpt's other positions.
        counts: `[group]`, median count of the tokens in the whole reference.
    """

    points: tuple[str, ...]
    own: Float[np.ndarray, "group excerpt point"]
    elsewhere: Float[np.ndarray, "group excerpt point"]
    counts: Float[np.ndarray, " group"]


def rarity(model: MeasuredModel) -> Section:
    """How the layers rank rare and common input tokens, at their own positions and at others."""
    found = _measure(model)
    layers = [point_name(point) for point in found.points]
    centre = middle(len(found.points))
    rng = np.random.default_rng(0)
    own, gain = found.own[..., centre].mean(-1), (found.elsewhere - found.own)[..., centre].mean(-1)
    raw = mean_interval(own[0] - own[1], rng=rng)
    relative = mean_interval(gain[0] - gain[1], rng=rng)
    typical = [count(typical_rank(value)) for value in own.mean(-1)]
    factors = 10 ** gain.mean(-1)
    plain = logit_lens(model.bridge, PLASMA)
    return Section(
        name="rarity",
        title="The rarer an input token, the better it survives",
        brief=f"typical rank {typical[0]} of rare tokens, {typical[1]} of common ones; "
        f"{_times(factors[0])} and {_times(factors[1])} than the same tokens' elsewhere",
        claim="Some input tokens keep a remarkably high rank through the layers, and the rarer a "
        "token, the better it seems to be preserved, perhaps so that later positions can copy it.",
        conditions=(
            Condition(
                "in the middle half of the layers, rare input tokens are ranked better than common "
                "ones",
                raw.high < 0,
                f"typical rank {typical[0]} of rare tokens, {typical[1]} of common ones "
                f"(ratio {_factor(raw)})",
            ),
            Condition(
                "they gain more from being the input: their rank there, against the rank that the "
                "same layers give the same token at other positions, is better than common tokens'",
                relative.low > 0,
                f"rare tokens are ranked {_times(factors[0])} where they are the input than "
                f"elsewhere, common ones {_times(factors[1])} (ratio {_factor(relative)})",
            ),
        ),
        text=(
            f"{_EXCERPTS} paragraphs of the Python language reference were read, {_TOKENS} tokens "
            f"of each. From each come its {_WATCHED} rarest and its {_WATCHED} commonest tokens, "
            "by their counts in the whole reference (median "
            f"{found.counts[0]:,.0f} and {found.counts[1]:,.0f}). "
            "Ratios have 95% bootstrap intervals over paragraphs.",
            "The second condition is not in the post. Common tokens are ranked high by every layer "
            "whatever the input is, so a raw rank says as much about the token as about its "
            "survival. The post itself notes that its sense of scale is a guess, and that "
            "survival depends on the context.",
        ),
        figures=(
            Figure(
                "Rare and common tokens, where they are the input and where they are not.",
                _curves(found, layers),
            ),
            Figure(
                "The post's example up to its first “plasma”: does the word survive?",
                plain[: model.token_count(PLASMA_FIRST)].plot("input_rank", every=2),
            ),
        ),
    )


def _measure(model: MeasuredModel) -> _Survival:
    bridge = model.bridge
    counts, paragraphs = _reference(model)
    own, elsewhere, occurrences = [], [], []
    step = max(1, len(paragraphs) // _EXCERPTS)
    for paragraph in paragraphs[::step][:_EXCERPTS]:
        ids = bridge.to_tokens(paragraph, truncate=False)[:, : _TOKENS + 1]
        by_count = sorted(set(ids[0, 1:].tolist()), key=lambda token: (counts[token], token))
        watched = by_count[:_WATCHED] + by_count[-_WATCHED:]
        # The first token of a text is an outlier.
        read = logit_lens(bridge, ids, watch=watched, positions=slice(1, None), top_k=1)
        logs = log10_ranks(cells(read.statistic("watched_rank")[:, 0]))
        here = read.tokens[0].numpy()[:, None] == np.array(watched)
        own.append(_group_means(logs, here))
        elsewhere.append(_group_means(logs, ~here))
        occurrences.append([counts[token] for token in watched])
    by_group = rearrange(
        np.array(occurrences), "excerpt (group token) -> group (excerpt token)", token=_WATCHED
    )
    return _Survival(
        points=read.points,
        own=np.stack(own, axis=1),
        elsewhere=np.stack(elsewhere, axis=1),
        counts=np.median(by_group, axis=-1),
    )


def _reference(model: MeasuredModel) -> tuple[Counter[int], list[str]]:
    """How often each token occurs in the Python reference, and a paragraph of each topic."""
    tokenizer = model.bridge.tokenizer
    counts: Counter[int] = Counter()
    found = []
    for document in python_reference():
        blocks = [block for block in document.text.split("\n\n") if block.strip()]
        texts = [" ".join(block.split()) for block in blocks]
        for text in texts:
            counts.update(tokenizer.encode(text, add_special_tokens=False))
        found += [text for text in texts if len(text.split()) >= _WORDS and text[0].isupper()][:1]
    return counts, found


def _group_means(
    logs: Float[np.ndarray, "point pos token"], chosen: Bool[np.ndarray, "pos token"]
) -> Float[np.ndarray, "group point"]:
    """Means over each token's chosen positions, then over the tokens of each group."""
    means = (logs * chosen).sum(1) / chosen.sum(0)
    return reduce(means, "point (group token) -> group point", "mean", token=_WATCHED)


def _times(better: float) -> str:
    return f"{better:.1f} times better" if better >= 1 else f"{1 / better:.1f} times worse"


def _factor(interval: Interval) -> str:
    low, mean, high = (10**value for value in (interval.low, interval.estimate, interval.high))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _curves(found: _Survival, layers: list[str]) -> "go.Figure":
    curves = []
    places = {"as the input": found.own, "elsewhere": found.elsewhere}
    for colour, group in enumerate(_GROUPS):
        for dash, (place, values) in enumerate(places.items()):
            intervals = mean_intervals(values[colour].T, rng=np.random.default_rng(0))
            # Of log10(1 + rank).
            mean, low, high = (
                10 ** np.array([getattr(interval, end) for interval in intervals]) - 1
                for end in ("estimate", "low", "high")
            )
            curves.append(
                Curve(
                    label=f"{group} tokens, {place}",
                    unit="rank",
                    x=layers,
                    values=mean,
                    low=low,
                    high=high,
                    colour=colour,
                    dash=dash,
                )
            )
    return draw_over_layers(
        curves,
        title="Rank of a token where it is the input, and elsewhere",
        subtitle="Geometric means; bands are 95% bootstrap intervals over paragraphs.",
        theme="light",
    )
