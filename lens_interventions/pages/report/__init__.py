"""One HTML page about a set of runs: verdicts on top, then figures, tables, samples, methods."""

from .page import report as report
