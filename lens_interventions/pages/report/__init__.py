"""The report: one page about a set of finished runs, verdicts first, then figures and tables.

It knows `experiments.Result` and no experiment, so a new experiment needs no change here. What is
shown of a table or of sampled texts is worked out in `shown_tables.py`, how it looks is in
`page.html` and `page.css`, and `methods.html` explains the verdicts. It may import whatever `pages`
may, but not the demo.
"""

from .page import report as report
