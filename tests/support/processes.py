"""Other processes for tests, forked from one that has imported the library.

Importing torch, transformers and TransformerLens takes some five seconds, which a fresh Python pays
for each test.
"""

import contextlib
import importlib
import io
import multiprocessing
import sys

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.small_run"])


def lens_interventions(*arguments: object) -> None:
    """The command line, for a process of its own."""
    from lens_interventions import cli

    sys.argv = ["lens-interventions", *map(str, arguments)]
    cli.main()


def printed(code: str, *arguments: str) -> str:
    """Run code as `python -c` does, and return what it prints; for a process of its own."""
    sys.argv = ["-c", *arguments]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    return output.getvalue()


def modules_after(module: str) -> set[str]:
    """What is imported once a module is, for a process that has drawn nothing."""
    importlib.import_module(module)
    return set(sys.modules)
