"""`lens-interventions generate`: continue a prompt under a patch."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .checks import finite, usage
from .options import (
    Chat,
    Device,
    Dtype,
    LensName,
    Model,
    Revision,
    as_message,
    load,
)
from .patch_options import (
    Embedding,
    FirstPosition,
    Gate,
    GateOn,
    Layer,
    Mode,
    Scale,
    Source,
    Strength,
    Window,
    Write,
    describe,
    patch_from,
    with_reader,
    without,
)

if TYPE_CHECKING:
    from rich.text import Text

    from ..intervention.generation.result import Generation, GenerationStep


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    layer: Layer = None,
    strength: Strength = None,
    write: Write = None,
    mode: Mode = None,
    source: Source = None,
    scale: Scale = None,
    embedding: Embedding = None,
    first_position: FirstPosition = None,
    window: Window = None,
    gate: Gate = None,
    gate_on: GateOn = "lens",
    lens: LensName = None,
    only_generated: Annotated[
        bool,
        typer.Option("--only-generated", help="Do not patch the positions inside the prompt."),
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show the continuation without a patch beside it.")
    ] = False,
    chat: Chat = False,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="The largest number of tokens to generate.")
    ] = 100,
    temperature: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="Sample at this temperature; 0 takes the likeliest token."
        ),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Sample from the likeliest tokens that together have this probability.",
        ),
    ] = 1.0,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            callback=finite,
            help="Penalize tokens that have occurred by this factor; 1 is no penalty.",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The seed of sampling and of random sources.")] = 0,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = "float32",
    revision: Revision = None,
) -> None:
    """Continue a prompt while each known next token is patched into a layer, and mark loops."""
    if not prompt:
        raise typer.BadParameter("the text is empty")
    with usage():
        from ..intervention.generation.processors import sampling

        if top_p != 1 and temperature == 0:
            raise typer.BadParameter("--top-p needs --temperature above 0: it is for sampling")
        numbers = {"top_p": top_p, "repetition_penalty": repetition_penalty}
        rules = sampling(temperature, numbers)
    patch = patch_from(
        model=model,
        write=write,
        layer=layer,
        strength=strength,
        mode=mode,
        source=source,
        scale=scale,
        embedding=embedding,
        first_position=first_position,
        window=window,
        gate=gate,
        gate_on=gate_on,
        lens=lens,
        seed=seed,
        positions="generated" if only_generated else "all",
    )
    bridge = load(model, device, dtype, revision)

    from ..intervention.generation.generate import generate as continue_prompts

    patches = [None, patch] if compare else [patch]
    names = [without(patch) if each is None else describe(each) for each in patches]
    written: list[list[int]] = [[] for _ in patches]

    def keep(step: "GenerationStep") -> None:
        for row, token in zip(step.rows.tolist(), step.tokens.tolist(), strict=True):
            written[row].append(token)

    with with_reader(bridge, patch):
        try:
            out = continue_prompts(
                bridge,
                None if chat else prompt,
                patches,
                messages=as_message(prompt, chat),
                max_new_tokens=max_new_tokens,
                seed=seed,
                callback=keep,
                progress=True,
                **rules,
            )
        except KeyboardInterrupt as stop:
            for name, ids in zip(names, written, strict=True):
                text = bridge.tokenizer.decode(ids, skip_special_tokens=True)
                stop.add_note(f"{name} has written {text!r}")
            raise
    _print(prompt, out, names, [_marked(bridge.tokenizer, row) for row in out.tokens])


def _marked(tokenizer: Any, row: Any) -> "tuple[Text, str]":
    """A continuation with its loops marked, and a description of them."""
    from rich.text import Text

    from ..measures.behaviour import find_loops

    ids = row[row >= 0]
    text = Text(_printable(tokenizer.decode(ids, skip_special_tokens=True)))

    def place(token: int) -> int:
        return len(tokenizer.decode(ids[:token], skip_special_tokens=True))

    loops = find_loops(ids)
    for loop in reversed(loops):
        text.stylize("black on yellow", place(loop.start), place(loop.start + loop.period))
        text.stylize("yellow", place(loop.start + loop.period), place(loop.end))
        # For readers who see no colours.
        text = Text.assemble(text[: place(loop.start)], "⟲", text[place(loop.start) :])
    found = [
        f"a loop of {loop.period} tokens, {loop.rounds:.1f} times round from token {loop.start}"
        for loop in loops
    ]
    return text, "; ".join(found) or "no loop"


def _printable(text: str) -> str:
    """The text with a picture in place of each character that controls a terminal.

    rich drops some of these characters, which would shift everything after them.
    """
    pictures = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
    return text.translate(pictures | dict.fromkeys(range(0x7F, 0xA0), "␦"))


def _print(
    prompt: str, out: "Generation", names: list[str], marked: "list[tuple[Text, str]]"
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..drawing.labels import counted

    table = Table(expand=True)
    cells, facts = [], []
    for row, (text, loops) in enumerate(marked):
        table.add_column(names[int(out.patch_index[row])], ratio=1)
        cells.append(text)
        mean = float(out.log_probs[row].nanmean())
        tokens = counted(int(out.lengths[row]), "token")
        facts.append(f"{tokens}, {-mean:.2f} nats each under the model; {loops}")
    table.add_row(*cells, end_section=True)
    table.add_row(*(Text(fact, style="dim") for fact in facts))
    console = Console()
    console.print(Text(_printable(prompt), style="bold"))
    console.print(table)
