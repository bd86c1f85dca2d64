"""Commands pass over the objects that stay, and leave the collector as it was."""

import gc
import subprocess
import sys
import weakref

from lens_interventions.cli.garbage import everything_collected_after, nothing_collected


class _Cycle:
    def __init__(self):
        self.own = self


def test_what_was_loaded_is_passed_over_until_the_end():
    with everything_collected_after():
        with nothing_collected():
            assert not gc.isenabled()
            cycle = _Cycle()
        gone = weakref.ref(cycle)
        del cycle
        gc.collect()
        assert gc.isenabled()
        assert gone() is not None
    gc.collect()
    assert gone() is None
    assert gc.get_freeze_count() == 0


def test_nothing_is_collected_at_exit():
    program = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 1000))
from lens_interventions.cli import main
sys.argv = ["lens-interventions", "--version"]
main()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.split()[-1] == "True", run.stderr
