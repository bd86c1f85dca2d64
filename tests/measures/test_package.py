"""The measures by the names that users know them by."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["behaviour", "crossed", "intervals", "verdicts"])
def test_a_measure_is_there_whatever_was_imported_before(name):
    code = f"import lens_interventions as li; print(li.{name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"lens_interventions.measures.{name}"
