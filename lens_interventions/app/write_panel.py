"""The panel Write: a text continues with and without the patch, a token at a time."""

from collections.abc import Sequence
from typing import Any

from ..intervention.generation.generate import generate
from ..intervention.generation.processors import sampling
from ..intervention.generation.result import GenerationStep
from ..measures.behaviour.loops import Loop, find_loops
from ..model.vocabulary import token_ids
from .chosen_patch import chosen_patch
from .reading import TOP_K
from .recipes import recipe
from .state import State
from .subject import Subject
from .views import likeliest
from .worker import Emit, reports_to

ARMS = ("clean", "patched")
_MOST_NEW = 400


def write_panel(subject: Subject, state: State, emit: Emit) -> None:
    """The tokens of both texts as they come, with loops as they begin."""
    if not 1 <= state.max_new_tokens <= _MOST_NEW:
        raise ValueError(
            f"max_new_tokens must be from 1 to {_MOST_NEW}, got {state.max_new_tokens}"
        )
    rules = sampling(state.temperature, state.processors)
    prompt = subject.tokens(state)
    patch = chosen_patch(subject, state, reports_to(emit))
    begun = [*prompt, *token_ids(subject.bridge, state.prefix)]
    arms = [_Arm(subject.bridge.tokenizer, prompt, state.prefix) for _ in ARMS]
    emit("start", {"prefix": arms[0].begun, "recipe": recipe(subject, state)})

    def told(step: GenerationStep) -> None:
        columns = (step.rows, step.tokens, step.log_probs)
        for row, token, log_prob in zip(*(each.tolist() for each in columns), strict=True):
            known = {"arm": ARMS[row], "id": token, "log_prob": log_prob}
            emit("token", known | arms[row].add(token))

    generate(
        subject.bridge,
        [begun],
        [None, patch],
        max_new_tokens=state.max_new_tokens,
        prompt_length=len(prompt),
        seed=state.seed,
        callback=told,
        **rules,
    )
    emit("end", {})


def alternatives_panel(subject: Subject, state: State, emit: Emit) -> None:
    """The tokens that the arm of the state could have written after the prompt and the prefix."""
    if state.arm not in ARMS:
        raise ValueError(f"arm must be one of {', '.join(ARMS)}; got {state.arm!r}")
    prompt = subject.tokens(state)
    patched = state.arm == "patched"
    patch = chosen_patch(subject, state, reports_to(emit)) if patched else None
    out = generate(
        subject.bridge,
        [[*prompt, *state.prefix]],
        patch,
        max_new_tokens=1,
        prompt_length=len(prompt),
        trajectory={"top_k": min(TOP_K, int(subject.bridge.cfg.d_vocab)), "points": [-1]},
    )
    assert out.trajectory is not None
    emit("alternatives", {"likeliest": likeliest(out.trajectory, 0, 0)})


class _Arm:
    """One of the two texts as it grows after the prompt.

    `begun` has the pieces of text of the branch that it begins with.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], prefix: Sequence[int]) -> None:
        """Begin with a branch."""
        self._tokenizer, self._ids, self._n_prompt = tokenizer, list(prompt), len(prompt)
        self._told = len(tokenizer.decode(self._ids))
        self._loops: tuple[Loop, ...] = ()
        self.begun = [self._piece(token) for token in prefix]

    def add(self, token: int) -> dict[str, Any]:
        """The text that a token adds, and all loops if they change: most texts have none."""
        text = self._piece(token)
        before, self._loops = self._loops, find_loops(self._ids[self._n_prompt :])
        changed = self._loops != before
        loops = [[loop.start, loop.end, loop.period] for loop in self._loops] if changed else None
        return {"text": text, "loops": loops}

    def _piece(self, token: int) -> str:
        """The text that a token adds; a character of several tokens appears with the last one."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        piece, self._told = text[self._told :], len(text)
        return piece
