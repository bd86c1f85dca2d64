"""Lenses and probes made from a corpus, and how well they do on other text.

It may import `intervention`, `lens` and what is below them, and no experiment. Every closed-form
fit is one pass of `corpus_moments.py` over the texts and a solution of `ridge.py`; a new one says
what it adds up of a window. A measure of a fit has a module of its own, as `lens_quality.py` is.
"""
