"""The report: one page about a set of finished runs, verdicts first, then figures and tables.

It knows `experiments.Result`, and of single experiments only which are about patches and that
networks of `scratch` have depths of their own. A new experiment needs no change here.
`shown_tables.py` selects the parts of tables and sampled texts to show, `page.html` and `page.css`
define their look, and `methods.html` explains the verdicts. It may import the same packages as
`pages`, but not the demo.
"""

from .page import report as report
