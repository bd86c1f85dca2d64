"""The state of the page: all that a view depends on, as in the page's address.

Fields at their defaults are left out of the address and of requests.
"""

from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..drawing.labels import shorten

MOST_CHARACTERS = 20_000
_MOST_ITEMS = 2_000  # of a list: tokens to continue from, messages, watched tokens

DEFAULT_TEXT = (
    "Sometimes, when people say plasma, they mean a state of matter. Other times, when people say"
)

_KINDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


@dataclass(frozen=True, kw_only=True)
class State:
    """The choices that a view depends on.

    Attributes:
        panel: `"read"`, `"patch"`, `"write"` or `"compare"`.
        text: the prompt, unless `chat`.
        chat: whether the prompt is `messages`, laid out by the model's chat template.
        messages: role and content in turns.
        statistic: the statistic that the colours show.
        lens: `"raw"`, `"fitted"`, or `"given"`, the one that the explorer was started with.
        every: keep every n-th layer; None for as many as fit.
        include_input: whether to show the input's row; None for the statistic's default.
        last: read only this many of the last positions; None for all.
        watch: ids of tokens to follow through the layers.
        watch_text: one more token to follow, as text; empty for none.
        commitment: how the final guess stays: `"top1"`, `"top3"` or `"half"`.
        point: label of the chosen residual point.
        position: the chosen position.
        layer, strength, mode, source, scale, embedding, gate, gate_on, window: those of
            `NextTokenPatch`.
        only_position: patch only the chosen position, in the panel `"patch"`.
        only_generated: patch only positions after the prompt, in the panel `"write"`.
        prefix: a branch: ids that follow the prompt before new text.
        arm: the text that a branch is taken from, `"clean"` or `"patched"`.
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed: options of sampling;
            temperature 0 takes the likeliest token.
        width: the pixels that a figure may take without scrolling; None for no limit.
        other_text: a prompt to compare with; empty for the other model.
    """

    panel: str = "read"
    text: str = DEFAULT_TEXT
    chat: bool = False
    messages: tuple[str, ...] = ("user", "What is plasma?")
    statistic: str = "top1"
    lens: str = "raw"
    every: int | None = None
    include_input: bool | None = None
    last: int | None = None
    watch: tuple[int, ...] = ()
    watch_text: str = ""
    commitment: str = "top1"
    point: str = "final_post"
    position: int | None = None
    layer: int | None = None
    strength: float = 0.1
    mode: str = "interpolate"
    source: str = "true"
    scale: str = "norm"
    embedding: str = "W_E"
    gate: float | None = None
    gate_on: str = "lens"
    window: int | None = None
    only_position: bool = False
    only_generated: bool = False
    prefix: tuple[int, ...] = ()
    arm: str = "patched"
    max_new_tokens: int = 60
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    width: int | None = None
    other_text: str = DEFAULT_TEXT.replace("plasma", "coffee")

    @property
    def processors(self) -> dict[str, float]:
        """The numbers of processors other than the temperature, by transformers' names."""
        return {name: getattr(self, name) for name in ("repetition_penalty", "top_k", "top_p")}


def parse_state(values: object) -> State:
    """The state that a request holds.

    Raises `ValueError` for an unknown field, or a value of the wrong kind.
    """
    if not isinstance(values, dict):
        raise ValueError(f"the state must be an object with fields, got {_shown(values)}")
    hints = get_type_hints(State)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"the state has no field {unknown[0]!r}; it has {', '.join(hints)}")
    return State(**{name: _parsed(name, value, hints[name]) for name, value in values.items()})


def defaults() -> dict[str, Any]:
    """Every field with its default, as JSON values."""
    return {field.name: field.default for field in fields(State)}


def changed(state: State) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    return {
        name: getattr(state, name)
        for name, default in defaults().items()
        if getattr(state, name) != default
    }


def _parsed(name: str, value: object, kind: Any) -> Any:
    if isinstance(kind, UnionType):
        if value is None:
            return None
        (kind,) = (choice for choice in get_args(kind) if choice is not type(None))
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or len(value) > _MOST_ITEMS:
            raise ValueError(f"{name} must be a list of up to {_MOST_ITEMS:,}, got {_shown(value)}")
        return tuple(_parsed(name, item, get_args(kind)[0]) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise ValueError(f"{name} must be {_KINDS[kind]}, got {_shown(value)}") from error
    if type(value) is not kind:
        raise ValueError(f"{name} must be {_KINDS[kind]}, got {_shown(value)}")
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        raise ValueError(
            f"{name} has {len(value):,} characters, and the explorer takes {MOST_CHARACTERS:,}: "
            "shorten it, or read it with li.logit_lens"
        )
    return value


def _shown(value: object) -> str:
    return shorten(repr(value), 60)
