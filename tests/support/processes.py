"""Other processes for tests, forked from one that has imported the library.

Importing torch, transformers and TransformerLens takes some five seconds, which a fresh Python pays
for each test.
"""

import importlib
import multiprocessing
import sys

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.small_run"])


def lens_interventions(*arguments: object) -> None:
    """The command line, for a process of its own."""
    from lens_interventions import cli

    sys.argv = ["lens-interventions", *map(str, arguments)]
    cli.main()


def modules_after(module: str) -> set[str]:
    """What is imported once a module is, for a process that has drawn nothing."""
    importlib.import_module(module)
    return set(sys.modules)
