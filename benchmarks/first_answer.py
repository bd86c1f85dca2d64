"""The command line's first answer comes sooner than one forward by TransformerLens in a script.

Processes of their own from a warm disk, on the embedded model. The script imports
TransformerLens, boots the model, runs one forward and ends.
"""

import subprocess
import sys

from benchmarks.command import run
from benchmarks.common import in_turns, ratio
from benchmarks.results import Row
from lens_interventions.model.embedded import embedded_model

TEXT = "The capital of France is"
COMMAND, SCRIPT, IMPORTS = "command", "script", "imports"
PROGRAMS = {
    COMMAND: (
        "import sys; from lens_interventions.cli import main\n"
        "sys.argv[1:] = ['lens', {text!r}]; main()"
    ),
    SCRIPT: (
        "from transformer_lens.model_bridge import TransformerBridge\n"
        "print(TransformerBridge.boot_transformers({path!r})({text!r}).argmax(-1))"
    ),
    IMPORTS: "from transformer_lens.model_bridge import TransformerBridge",
}


def _started(program: str) -> None:
    code = program.format(text=TEXT, path=str(embedded_model()))
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def measure(quick: bool) -> list[Row]:
    """Seconds from the start of a process to its end, the least of a few."""
    seconds = in_turns(
        {name: lambda program=program: _started(program) for name, program in PROGRAMS.items()},
        1 if quick else 5,
    )
    return [
        Row(work="lens, from start to end", measured=min(seconds[COMMAND]), unit="s", at_most=4),
        Row(
            work="to a script of TransformerLens with one forward",
            measured=ratio(seconds, COMMAND, SCRIPT),
            unit="x",
        ),
        Row(
            work="to importing TransformerLens, nothing else",
            measured=ratio(seconds, COMMAND, IMPORTS),
            unit="x",
        ),
    ]


if __name__ == "__main__":
    run(measure)
