"""The measures by the names that users know them by."""

from concurrent.futures import ProcessPoolExecutor

from tests.support.processes import PROCESSES, printed

CODE = """
import importlib
import sys

for measure in sys.argv[1:]:
    for name in [name for name in sys.modules if name.startswith("lens_interventions")]:
        del sys.modules[name]
    package = importlib.import_module("lens_interventions")
    print(getattr(package, measure).__name__)
"""


def test_a_measure_is_there_if_nothing_of_the_library_was_imported_before():
    names = ["behaviour", "crossed", "intervals", "verdicts"]
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as executor:
        found = executor.submit(printed, CODE, *names).result()
    assert found.split() == [f"lens_interventions.measures.{name}" for name in names]
