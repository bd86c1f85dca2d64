"""The page: a template, the files that it loads, and its settings for the model."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..drawing.export import CONFIG
from ..drawing.theme import templates
from ..intervention.modes import MODES
from ..intervention.sources import SOURCES
from ..pages.rendering import environment
from .chosen_patch import chosen_layer
from .reading import statistics
from .state import State, defaults
from .subject import Subject
from .views import figure_values

_LENSES = {
    "raw": "raw logit lens",
    "fitted": "fitted to the model's own text",
    "given": "the one given",
}
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFile:
    """A file that the page loads."""

    content: bytes
    media_type: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Every file of the page, by name; no other file of the disk is ever read."""
    from plotly.offline import get_plotlyjs

    found = {
        path.name: StaticFile(path.read_bytes(), _TYPES["." + path.name.rpartition(".")[2]])
        for path in files(__package__).joinpath("static").iterdir()
        if path.is_file()
    }
    return {**found, "plotly.js": StaticFile(get_plotlyjs().encode(), _TYPES[".js"])}


def page(subject: Subject) -> str:
    """The page of a model."""
    return environment(__package__).get_template("page.html").render(settings=_settings(subject))


def _settings(subject: Subject) -> dict[str, Any]:
    """The values that the page needs before its first request."""
    cfg, bridge = subject.bridge.cfg, subject.bridge
    return {
        "model": str(cfg.model_name),
        "n_layers": int(cfg.n_layers),
        "other": None if subject.other is None else str(subject.other.cfg.model_name),
        "has_chat": getattr(bridge.tokenizer, "chat_template", None) is not None,
        "lenses": {name: _LENSES[name] for name in subject.lenses()},
        "statistics": {
            name: row.title.format(token="the watched token") for name, row in statistics().items()
        },
        "modes": [(mode, mode) for mode in MODES],
        "sources": {name: source.words for name, source in SOURCES.items()},
        "slopes": None if subject.slopes is None else figure_values(subject.slopes.plot()),
        "defaults": defaults() | {"layer": chosen_layer(subject, State())},
        "templates": templates(),
        "config": CONFIG,
    }
