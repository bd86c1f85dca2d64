"""The subject of an explorer: a model, its lenses, and kept readings of it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import JacobianLens

from ..intervention.slopes.result import SlopeMap
from ..lens.protocol import Lens
from ..model.alterations import alteration
from ..model.chat import chat_tokens
from ..model.exclusive import exclusive_use
from ..model.fingerprint import model_hash
from ..model.kinds import require_kind
from ..model.readout import readout
from ..model.replaced_forwards import forwards_of_user
from ..model.tokens import token_batch
from ..model.user_hooks import lasting_hooks
from .state import State

MOST_TOKENS = 512
_KEPT = 24  # results; a reading of 512 tokens of the embedded model holds some 40 MB
_KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Origin:
    """How the model was loaded, for the code and commands that the page offers.

    Attributes:
        bridge: the line of Python that makes `bridge`; None if it was passed in Python.
        lens: the line that makes `lens`; None if there is no lens, or if it was passed in Python.
        options: the options of the command line that load the model; None if they cannot.
        lens_options: the options that load the lens.
        other_options: the options of `app` that load the second model.
    """

    bridge: str | None = None
    lens: str | None = None
    options: tuple[str, ...] | None = None
    lens_options: tuple[str, ...] = ()
    other_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A model with its lenses and the results that the page shows.

    Attributes:
        bridge: the model.
        origin: how it was loaded.
        lens: the given lens, if any.
        other: a second model with the same tokenizer, to compare with.
        slopes: a slope map of the model, shown as a hint of where to patch.
    """

    bridge: TransformerBridge
    origin: Origin
    lens: Lens | JacobianLens | None = None
    other: TransformerBridge | None = None
    slopes: SlopeMap | None = None
    _kept: "OrderedDict[Hashable, Any]" = field(default_factory=OrderedDict, repr=False)
    _lenses: dict[bool, tuple[Hashable, Lens]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        # A model that cannot be read or write is refused before anything is served.
        for model in self.models:
            require_kind(model, TransformerBridge, "the explorer")
            readout(model)
        if self.other is not None:
            first, second = (model.tokenizer for model in self.models)
            if first is None or second is None or first.get_vocab() != second.get_vocab():
                raise ValueError(
                    f"{self.other.cfg.model_name} has another tokenizer than "
                    f"{self.bridge.cfg.model_name}, so their tokens cannot be compared: give "
                    "a second model with the same one"
                )
            depths = [int(model.cfg.n_layers) for model in self.models]
            if depths[0] != depths[1]:
                raise ValueError(
                    f"{self.other.cfg.model_name} has {depths[1]} layers and "
                    f"{self.bridge.cfg.model_name} has {depths[0]}, so their layers cannot be "
                    "compared: give a second model with as many"
                )

    @property
    def models(self) -> list[TransformerBridge]:
        """The model, and the second one if there is one."""
        return [self.bridge] if self.other is None else [self.bridge, self.other]

    def model(self, *, second: bool) -> TransformerBridge:
        """The model, or the second one, which there must be then."""
        return self.models[int(second)]

    def compared_names(self, state: State) -> tuple[str, str]:
        """What the two sides of a comparison are called."""
        if state.other_text:
            return "first prompt", "second prompt"
        first, second = (str(model.cfg.model_name) for model in self.models)
        return (first, second) if first != second else ("first model", "second model")

    def chosen_lens(
        self,
        state: State,
        report: Callable[[float], object] | None = None,
        *,
        second: bool = False,
    ) -> Lens | JacobianLens | None:
        """The lens that the state names; a fitted one is fitted on first use.

        `report` is called with the share of the fit that is done. `second` asks for the lens that
        reads the second model, which has a fitted one of its own.

        Raises `ValueError` for another name, or if none was given.
        """
        if state.lens == "raw":
            return None
        if state.lens == "fitted":
            from ..fitting.default_lens import default_affine_lens

            bridge = self.model(second=second)
            with exclusive_use(bridge):
                fitted_to = lasting_hooks(bridge), forwards_of_user(bridge), model_hash(bridge)
            if self._lenses.get(second, (None,))[0] != fitted_to:
                lens = default_affine_lens(bridge, progress=report or False)
                self._lenses[second] = fitted_to, lens
            return self._lenses[second][1]
        if state.lens == "given" and self.lens is not None:
            return self.lens
        raise ValueError(f"lens must be {', '.join(self.lenses())}; got {state.lens!r}")

    def lenses(self) -> tuple[str, ...]:
        """The names of the available lenses."""
        return ("raw", "fitted", *(["given"] if self.lens is not None else []))

    def tokens(self, state: State, text: str | None = None) -> list[int]:
        """The ids of the prompt, or of another text instead.

        Raises `ValueError` if there is no text, or if it is too long.
        """
        if self.bridge.tokenizer is None:
            raise ValueError("this bridge has no tokenizer, which the explorer needs")
        if text is None and state.chat:
            ids = chat_tokens(self.bridge, chat(state.messages))
        else:
            said = state.text if text is None else text
            if not said:  # a BOS alone is not what the user means
                raise ValueError("the text is empty: write a prompt")
            batch = token_batch(self.bridge, said, any_length=True)
            ids = batch.tokens[0].tolist()
        most = min(MOST_TOKENS, int(self.bridge.cfg.n_ctx))
        if len(ids) > most:
            raise ValueError(
                f"the prompt has {len(ids):,} tokens, and the explorer shows {most}: shorten it, "
                "or read it with li.logit_lens"
            )
        return ids

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result under this key, made by `make` the first time; the oldest results are dropped.

        Every key includes the state of the weights. Nothing is kept while the model is altered, as
        by hooks of the user, which may act differently each time, nor if the model was changed in
        the meantime.
        """
        condition = tuple(map(_condition, self.models))
        full_key = (key, condition)
        if None not in condition and full_key in self._kept:
            self._kept.move_to_end(full_key)
            return self._kept[full_key]
        made = make()
        if None in condition or tuple(map(_condition, self.models)) != condition:
            return made
        self._kept[full_key] = made
        while len(self._kept) > _KEPT or _bytes(self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return made


def chat(messages: tuple[str, ...]) -> list[dict[str, str]]:
    """Alternating roles and contents as messages for transformers.

    Raises `ValueError` for half a turn.
    """
    if len(messages) % 2:
        raise ValueError("a chat is made of roles and contents in turns")
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return [{"role": role, "content": content} for role, content in pairs]


def _condition(bridge: TransformerBridge) -> Hashable:
    """What readings of a bridge depend on besides the request: the model; None if altered."""
    with exclusive_use(bridge):  # another thread's run puts its own hooks on it
        return model_hash(bridge) if alteration(bridge) is None else None


def _bytes(values: Any) -> int:
    """Bytes of the tensors of readings and trajectories."""
    with_tensors = (value for value in values if hasattr(value, "tensors"))
    return sum(tensor.nbytes for value in with_tensors for tensor in value.tensors().values())
