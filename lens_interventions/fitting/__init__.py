"""Lenses and probes fitted to a corpus, and their quality on other text.

It may import `intervention`, `lens` and what is below them, and no experiment. Every closed-form
fit is one pass of `corpus_moments.py` over the texts and a solution of `ridge.py`; a new fit
defines the sums that it takes over a window. A measure of a fit has a module of its own, such as
`lens_quality.py`.
"""
