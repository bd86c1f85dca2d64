"""A view as a command: `lens` or `generate` if they make it, otherwise `app` at the view."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote, urlencode

from ..model.vocabulary import token_ids, token_strings
from .chosen_patch import chosen_patch
from .reading import watched
from .state import State, changed
from .subject import Subject

_PROGRAM = "lens-interventions"


def command(subject: Subject, state: State) -> str | None:
    """The command line that makes a view; None if it cannot load the model."""
    model = subject.origin.options
    if model is None:
        return None
    by_itself = {"read": _lens, "write": _generate}.get(state.panel)
    words = None if by_itself is None else by_itself(subject, state)
    if words is None:
        of_app = (*subject.origin.lens_options, *subject.origin.other_options)
        return _joined([_PROGRAM, "app", *of_app, "--view", fragment(state), *model])
    name, text, *options = words
    # The text comes last, so one that begins with a dash is not read as an option.
    return _joined([_PROGRAM, name, *options, *model, "--", text])


def _joined(words: Sequence[str]) -> str:
    """One line for the shell of this machine: on Windows for cmd, which has no single quotes."""
    if sys.platform != "win32":
        return shlex.join(words)
    return " ".join(word if _PLAIN.fullmatch(word) else _between_quotes(word) for word in words)


# Words in which cmd finds nothing to interpret.
_PLAIN = re.compile(r"[\w./:=\\-]+", re.ASCII)


def _between_quotes(word: str) -> str:
    # As `subprocess.list2cmdline` does it, which leaves & and | without quotes: backslashes before
    # a quotation mark are doubled.
    inner = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\*)$", r"\1\1", inner) + '"'


def fragment(state: State) -> str:
    """The state as in the page's address, after the `#`, without the page's own width."""
    values = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in changed(replace(state, width=None)).items()
    }
    return urlencode(values, quote_via=quote)


def _lens(subject: Subject, state: State) -> list[str] | None:
    """Name, text and options of `lens`; None if it does not make the view."""
    rows_differ = state.every is not None or state.include_input is not None
    if state.chat or rows_differ or state.lens == "fitted":
        return None
    options = ["--stat", state.statistic] if state.statistic != "top1" else []
    ids = watched(subject, state)
    texts = token_strings(subject.bridge, ids)
    for token in ids:
        try:
            alone = token_ids(subject.bridge, texts[token])
        except ValueError:
            return None  # a piece of a character, which cannot be named by a text
        if alone != [token]:
            return None
        options += ["--watch", texts[token]]
    if state.last is not None:
        options.append(f"--positions=-{state.last}:")
    return ["lens", state.text, *options, *_lens_options(subject, state)]


def _generate(subject: Subject, state: State) -> list[str] | None:
    """Name, text and options of `generate`; None if it does not make the view."""
    patch = chosen_patch(subject, state)
    if state.chat or state.prefix or state.top_k or (state.lens == "fitted" and patch.uses_lens):
        return None
    numbers = {
        "--layer": patch.layer,
        "--strength": patch.strength,
        "--max-new-tokens": state.max_new_tokens,
        "--seed": state.seed,
    }
    chosen = {
        "--mode": (patch.mode, "interpolate"),
        "--source": (patch.source, "true"),
        "--scale": (patch.scale, "raw"),
        "--embedding": (patch.embedding, "W_E"),
        "--window": (patch.window, None),
        "--gate": (patch.gate, None),
        "--gate-on": (patch.gate_on, "lens"),
        "--temperature": (state.temperature, 0.0),
        "--top-p": (state.top_p, 1.0),
        "--repetition-penalty": (state.repetition_penalty, 1.0),
    }
    # Each is one word, because a negative number would look like an option.
    options = [f"{name}={value}" for name, value in numbers.items()]
    options += [f"{name}={value}" for name, (value, plain) in chosen.items() if value != plain]
    only = ["--only-generated"] if state.only_generated else []
    lens = _lens_options(subject, state) if patch.uses_lens else ()
    return ["generate", state.text, *options, *only, "--compare", *lens]


def _lens_options(subject: Subject, state: State) -> tuple[str, ...]:
    return subject.origin.lens_options if state.lens == "given" else ()
