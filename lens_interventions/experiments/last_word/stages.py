"""The one stage: a unit for each request, and one for each whose residuals are exchanged."""

from collections.abc import Sequence
from dataclasses import asdict

from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...materials import LastWord
from ...model.chat import chat_tokens
from ..design.sequences import token_list
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .measurements import measure_request, measure_sources
from .settings import LastWordSettings


def plan(bridge: TransformerBridge, settings: LastWordSettings, _rows: Tables) -> Sequence[Unit]:
    """All units of the experiment.

    Raises `ValueError` for a tokenizer without a chat template, or if there are too few requests
    or too short sentences.
    """
    items = [asdict(item) for item in _diagonals(materials.last_words())]
    if settings.requests > len(items):
        raise ValueError(f"there are {len(items)} requests, but {settings.requests} were asked for")
    fewest = min(len(token_list(bridge, item["sentence"])) for item in items)
    if settings.parts > fewest:
        raise ValueError(
            f"parts must be at most {fewest}, the tokens of the shortest sentence, got "
            f"{settings.parts}"
        )
    chat_tokens(bridge, [{"role": "user", "content": items[0]["asked"]}])
    traced = min(settings.traced, settings.requests)
    reading = {
        "new_tokens": settings.new_tokens,
        "every": settings.every,
        "parts": settings.parts,
    }
    layers = list(range(0, int(bridge.cfg.n_layers), settings.trace_every))
    return [
        *(
            Unit("along", f"{n:03d}", measure_request, {"item": item, **reading})
            for n, item in enumerate(items[: settings.requests])
        ),
        *(
            Unit("sources", f"{n:03d}", measure_sources, {"item": item, "layers": layers})
            for n, item in enumerate(items[:traced])
        ),
    ]


STAGES: dict[str, Stage] = {"words along sentences": plan}


def _diagonals(items: Sequence[LastWord]) -> list[LastWord]:
    """An order whose beginnings have words, topics and phrasings about equally often."""
    words, topics = (
        list(dict.fromkeys(getattr(item, name) for item in items)) for name in ("word", "topic")
    )

    def place(item: LastWord) -> tuple[int, int]:
        word = words.index(item.word)
        return (topics.index(item.topic) - word) % len(topics), word

    return sorted(items, key=place)
