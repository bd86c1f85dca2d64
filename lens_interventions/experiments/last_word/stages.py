"""The one stage: a unit for each request, and one for each whose residuals are exchanged."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from transformer_lens.model_bridge import TransformerBridge

from ... import materials
from ...model.chat import chat_tokens
from ..engine.results import Tables
from ..engine.run import Stage
from ..engine.work_units import Unit
from .measurements import measure_request, measure_sources
from .settings import LastWordSettings


def plan(bridge: TransformerBridge, settings: LastWordSettings, _rows: Tables) -> Sequence[Unit]:
    """All units of the experiment.

    Raises `ValueError` for a tokenizer without a chat template, or if there are too few requests.
    """
    items = [asdict(item) for item in materials.last_words()]
    if settings.requests > len(items):
        raise ValueError(f"there are {len(items)} requests, but {settings.requests} were asked for")
    chat_tokens(bridge, [{"role": "user", "content": items[0]["asked"]}])
    chosen = _spread(len(items), settings.requests)
    traced = _spread(len(items), min(settings.traced, settings.requests))
    reading = {
        "new_tokens": settings.new_tokens,
        "every": settings.every,
        "parts": settings.parts,
    }
    layers = list(range(0, int(bridge.cfg.n_layers), settings.trace_every))
    return [
        *(
            Unit("along", f"{n:03d}", measure_request, {"item": items[n], **reading})
            for n in chosen
        ),
        *(
            Unit("sources", f"{n:03d}", measure_sources, {"item": items[n], "layers": layers})
            for n in traced
        ),
    ]


STAGES: dict[str, Stage] = {"words along sentences": plan}


def _spread(n: int, k: int) -> list[int]:
    """`k` of `n` places, evenly spread; the step runs through all words and topics."""
    return sorted({int(place) for place in np.linspace(0, n - 1, k).round()})
