"""A view as Python code or as a command that makes the same numbers."""

from typing import Any

from ..intervention.generation.processors import PROCESSORS, chosen
from ..lens.statistics import STATISTICS
from .chosen_patch import chosen_patch, patch_code
from .commands import command
from .reading import options_of, watched
from .state import State
from .subject import Subject, chat


def recipe(subject: Subject, state: State) -> dict[str, str | None]:
    """Python code and a command that make the view; None if the command cannot load the model.

    If no other command makes the view, the command opens the explorer there.
    """
    if state.panel not in _BODIES:
        raise ValueError(f"panel must be one of {', '.join(_BODIES)}; got {state.panel!r}")
    lines = ["import lens_interventions as li", ""]
    lines.append(subject.origin.bridge or "# bridge is the model that li.explore was given.")
    lines += [*_lens(subject, state), _prompt(state), *_BODIES[state.panel](subject, state)]
    return {"python": "\n".join(lines) + "\n", "command": command(subject, state)}


def _prompt(state: State) -> str:
    if not state.chat:
        return f"prompt = {state.text!r}"
    return f"prompt = li.chat_tokens(bridge, {chat(state.messages)!r})"


def _lens(subject: Subject, state: State) -> list[str]:
    written_without = state.panel == "write" and chosen_patch(subject, state).lens is None
    if state.lens == "raw" or written_without:
        return []
    if state.lens == "fitted":
        return ["lens = li.default_affine_lens(bridge)"]
    return [subject.origin.lens or "# lens is the one that li.explore was given."]


def _read(subject: Subject, state: State) -> list[str]:
    return [
        f"trajectory = li.logit_lens(bridge, prompt{_reading(subject, state)})",
        f"figure = trajectory.plot({state.statistic!r}{_shown(subject, state)})",
    ]


def _patch(subject: Subject, state: State) -> list[str]:
    options = _reading(subject, state)
    return [
        patch_code(subject, state),
        f"clean = li.logit_lens(bridge, prompt{options})",
        "hooks = patch.fwd_hooks(bridge, prompt)",
        "with bridge.hooks(fwd_hooks=hooks):",
        f"    patched = li.logit_lens(bridge, prompt{options})",
        f"figure = li.plots.plot_side_by_side(\n    clean, patched, {state.statistic!r}"
        f"{_shown(subject, state)}\n)",
        "log_probs = li.teacher_forced_log_probs(bridge, prompt, [None, patch])",
    ]


def _write(subject: Subject, state: State) -> list[str]:
    rules = {"max_new_tokens": state.max_new_tokens, "seed": state.seed}
    said = [f"{name}={value!r}" for name, value in rules.items()]
    processors = [
        f"{PROCESSORS[name][0].__name__}({value!r})"
        for name, value in chosen(state.processors).items()
    ]
    lines = []
    if processors:
        names = sorted(name.partition("(")[0] for name in processors)
        lines.append(f"from transformers import {', '.join(names)}")
        said.append(f"logits_processor=[{', '.join(processors)}]")
    if state.temperature:
        said.append(f"do_sample=True, temperature={state.temperature!r}")
    if state.prefix:
        given = "prompt" if state.chat else "bridge.to_tokens(prompt)[0].tolist()"
        lines += [f"given = {given}", f"prompt = [*given, {', '.join(map(str, state.prefix))}]"]
        said.append("prompt_length=len(given)")
    lines.append(patch_code(subject, state))
    return [*lines, f"out = li.generate(\n    bridge, prompt, [None, patch], {', '.join(said)}\n)"]


def _compare(subject: Subject, state: State) -> list[str]:
    options = _reading(subject, state)
    about, second = [], f"bridge, {state.other_text!r}{options}"
    if not state.other_text:
        about, second = ["# other is the second model."], f"other, prompt{options}"
        if state.lens == "fitted":
            about.append("other_lens = li.default_affine_lens(other)")
            second = f"other, prompt{_reading(subject, state, lens='other_lens')}"
    return [
        *about,
        f"first = li.logit_lens(bridge, prompt{options})",
        f"second = li.logit_lens({second})",
        "alignment = li.align(first, second)",
        f"figure = li.plots.plot_side_by_side(\n    alignment.first, alignment.second, "
        f"{state.statistic!r}, "
        f"names={subject.compared_names(state)!r}{_shown(subject, state)}\n)",
    ]


def _reading(subject: Subject, state: State, *, lens: str = "lens") -> str:
    """Options of `logit_lens`, after a comma."""
    options = options_of(subject, state)
    said = [f", {name}={value!r}" for name, value in options.items()]
    return "".join(said) + ("" if state.lens == "raw" else f", lens={lens}")


def _shown(subject: Subject, state: State) -> str:
    """Options of a figure, after a comma."""
    options: dict[str, Any] = {"every": state.every, "include_input": state.include_input}
    said = [f", {name}={value!r}" for name, value in options.items() if value is not None]
    if STATISTICS[state.statistic].target == "watched":
        said.append(f", token={watched(subject, state)[-1]}")
    return "".join(said)


_BODIES = {"read": _read, "patch": _patch, "write": _write, "compare": _compare}
